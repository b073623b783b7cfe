"""A tenant's program for the tests: makes the CUDA driver calls that it is told on stdin.

Symbols come through dlsym (ctypes), so with libvgpu.so preloaded every call meets the wrapper that
a real program would get.
"""

import ctypes
import json
import os
import signal
import sys
import threading
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

from guest_fork import in_child
from guest_graph import GraphCalls, Location
from guest_launch import LaunchCalls
from guest_share import ShareCalls

SIZE, U64, HANDLE = c_size_t, c_uint64, c_void_p


class Properties(ctypes.Structure):
    """CUmemAllocationProp and CUmemPoolProps begin alike; the rest stays zero."""

    _fields_ = (("type", c_int), ("handles", c_int), ("location", Location), ("rest", U64 * 16))


class ArrayDescriptor(ctypes.Structure):
    _fields_ = (("width", SIZE), ("height", SIZE), ("format", c_int), ("channels", c_uint))


class Array3DDescriptor(ctypes.Structure):
    _fields_ = (
        ("width", SIZE),
        ("height", SIZE),
        ("depth", SIZE),
        ("format", c_int),
        ("channels", c_uint),
        ("flags", c_uint),
    )


class Memory(ctypes.Structure):
    _fields_ = (("total", U64), ("free", U64), ("used", U64))


class MemoryV2(ctypes.Structure):
    _fields_ = (
        ("version", c_uint),
        ("total", U64),
        ("reserved", U64),
        ("free", U64),
        ("used", U64),
    )


class Guest(GraphCalls, LaunchCalls, ShareCalls):
    """Every public method is a command; results are CUresult numbers or [result, value...]."""

    def __init__(self) -> None:
        self._cuda: Any = None
        self._nvml: Any = None

    def _driver(self) -> Any:
        if self._cuda is None:
            self._cuda = ctypes.CDLL("libcuda.so.1")
        return self._cuda

    def init(self, device: int = 0) -> int:
        context = HANDLE()
        cuda = self._driver()
        return (
            cuda.cuInit(0)
            or cuda.cuDevicePrimaryCtxRetain(byref(context), device)
            or cuda.cuCtxSetCurrent(context)
        )

    def release(self, device: int = 0) -> int:
        return self._driver().cuDevicePrimaryCtxRelease_v2(device)

    def context(self, device: int = 0):
        context = HANDLE()
        return [self._driver().cuCtxCreate_v2(byref(context), 0, device), context.value]

    def destroy(self, context: int) -> int:
        return self._driver().cuCtxDestroy_v2(HANDLE(context))

    def alloc(self, size: int):
        pointer = U64()
        return [self._driver().cuMemAlloc_v2(byref(pointer), SIZE(size)), pointer.value]

    def free(self, pointer: int) -> int:
        return self._driver().cuMemFree_v2(U64(pointer))

    def managed(self, size: int):
        pointer = U64()
        return [
            self._driver().cuMemAllocManaged(byref(pointer), SIZE(size), c_uint(1)),
            pointer.value,
        ]

    def pitch(self, width: int, height: int):
        pointer, pitch = U64(), SIZE()
        result = self._driver().cuMemAllocPitch_v2(
            byref(pointer), byref(pitch), SIZE(width), SIZE(height), c_uint(4)
        )
        return [result, pointer.value, pitch.value]

    def alloc_async(self, size: int, suffix: str = "", stream: int = 0):
        pointer = U64()
        call = getattr(self._driver(), "cuMemAllocAsync" + suffix)
        return [call(byref(pointer), SIZE(size), HANDLE(stream)), pointer.value]

    def free_async(self, pointer: int, suffix: str = "", stream: int = 0) -> int:
        call = getattr(self._driver(), "cuMemFreeAsync" + suffix)
        return call(U64(pointer), HANDLE(stream))

    def pool(self, device: int = 0, location: int = 1):
        pool, properties = HANDLE(), Properties(type=1, location=Location(location, device))
        return [self._driver().cuMemPoolCreate(byref(pool), byref(properties)), pool.value]

    def pool_destroy(self, pool: int) -> int:
        return self._driver().cuMemPoolDestroy(HANDLE(pool))

    def alloc_from(self, pool: int, size: int):
        pointer = U64()
        result = self._driver().cuMemAllocFromPoolAsync(
            byref(pointer), SIZE(size), HANDLE(pool), None
        )
        return [result, pointer.value]

    def trim(self, pool: int, keep: int = 0) -> int:
        return self._driver().cuMemPoolTrimTo(HANDLE(pool), SIZE(keep))

    def synchronize(self) -> int:
        return self._driver().cuCtxSynchronize()

    def synchronize_stream(self) -> int:
        return self._driver().cuStreamSynchronize(None)

    def create(self, size: int, device: int = 0, location: int = 1):
        handle, properties = U64(), Properties(type=1, location=Location(location, device))
        result = self._driver().cuMemCreate(byref(handle), SIZE(size), byref(properties), U64(0))
        return [result, handle.value]

    def release_handle(self, handle: int) -> int:
        return self._driver().cuMemRelease(U64(handle))

    def reserve(self, size: int):
        address = U64()
        result = self._driver().cuMemAddressReserve(
            byref(address), SIZE(size), SIZE(0), U64(0), U64(0)
        )
        return [result, address.value]

    def map(self, address: int, size: int, handle: int) -> int:
        return self._driver().cuMemMap(U64(address), SIZE(size), SIZE(0), U64(handle), U64(0))

    def unmap(self, address: int, size: int) -> int:
        return self._driver().cuMemUnmap(U64(address), SIZE(size))

    def retain_handle(self, address: int):
        handle = U64()
        result = self._driver().cuMemRetainAllocationHandle(byref(handle), HANDLE(address))
        return [result, handle.value]

    def array(self, width: int, height: int):
        array, descriptor = HANDLE(), ArrayDescriptor(width, height, 0x20, 1)
        return [self._driver().cuArrayCreate_v2(byref(array), byref(descriptor)), array.value]

    def array_destroy(self, array: int) -> int:
        return self._driver().cuArrayDestroy(HANDLE(array))

    def mipmapped(self, width: int, height: int, levels: int):
        array, descriptor = HANDLE(), Array3DDescriptor(width, height, 0, 0x20, 1, 0)
        result = self._driver().cuMipmappedArrayCreate(
            byref(array), byref(descriptor), c_uint(levels)
        )
        return [result, array.value]

    def info(self):
        free, total = SIZE(), SIZE()
        return [
            self._driver().cuMemGetInfo_v2(byref(free), byref(total)),
            free.value,
            total.value,
        ]

    def info_of(self, device: int):
        """The same with another device's primary context."""
        context = HANDLE()
        self._driver().cuDevicePrimaryCtxRetain(byref(context), device)
        self._driver().cuCtxSetCurrent(context)
        return self.info()

    def info_without_pointers(self) -> int:
        return self._driver().cuMemGetInfo_v2(None, None)

    def total(self, device: int = 0):
        total = SIZE()
        return [self._driver().cuDeviceTotalMem_v2(byref(total), device), total.value]

    def nvml(self, index: int = 0):
        """Memory figures of a card: [total, free, used] as v1 and as v2 says them."""
        if self._nvml is None:
            self._nvml = ctypes.CDLL("libnvidia-ml.so.1")
            self._nvml.nvmlInit_v2()
        device, one, two = HANDLE(), Memory(), MemoryV2(version=ctypes.sizeof(MemoryV2) | 2 << 24)
        self._nvml.nvmlDeviceGetHandleByIndex_v2(index, byref(device))
        self._nvml.nvmlDeviceGetMemoryInfo(device, byref(one))
        self._nvml.nvmlDeviceGetMemoryInfo_v2(device, byref(two))
        return [[one.total, one.free, one.used], [two.total, two.free, two.used]]

    def processes(self, size: int, room: int):
        """NVML's list of computing processes: [result, count, [pid, bytes] that were written]."""
        if self._nvml is None:
            self.nvml()
        device, count = HANDLE(), c_uint(room)
        self._nvml.nvmlDeviceGetHandleByIndex_v2(0, byref(device))
        rows = (U64 * (room * size // 8))()
        form = {16: "", 24: "_v2"}[size]
        call = getattr(self._nvml, "nvmlDeviceGetComputeRunningProcesses" + form)
        result = call(device, byref(count), rows if room else None)
        words = size // 8
        shown = [[rows[i * words], rows[i * words + 1]] for i in range(min(room, count.value))]
        return [result, count.value, shown]

    def work(self, milliseconds: int) -> int:
        """One kernel of that length, waited for."""
        module, function, cuda = HANDLE(), HANDLE(), self._driver()
        return (
            cuda.cuModuleLoadData(byref(module), b"opaque image")
            or cuda.cuModuleGetFunction(byref(function), module, b"k_%dus" % (milliseconds * 1000))
            or cuda.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, None, None, None)
            or cuda.cuCtxSynchronize()
        )

    def module(self):
        module = HANDLE()
        return [self._driver().cuModuleLoadData(byref(module), b"opaque image"), module.value]

    def unload(self, module: int) -> int:
        return self._driver().cuModuleUnload(HANDLE(module))

    def race(self, threads: int, size: int, rounds: int):
        """Allocates and frees from several threads; counts grants, refusals and other errors."""
        counts = {0: 0, 2: 0}
        others: list[int] = []
        lock = threading.Lock()
        context = HANDLE()
        self._driver().cuCtxGetCurrent(byref(context))

        def work() -> None:
            self._driver().cuCtxSetCurrent(context)
            for _ in range(rounds):
                result, pointer = self.alloc(size)
                with lock:
                    if result in counts:
                        counts[result] += 1
                    else:
                        others.append(result)
                if result == 0 and self.free(pointer) != 0:
                    others.append(-1)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return [counts[0], counts[2], others]

    def fork_alloc(self, size: int):
        """What a forked child gets: its own start with the driver, and what it may allocate."""
        return in_child(lambda: [self.init(), *self.alloc(size), *self.info()])

    def fork_idle(self) -> int:
        """Leaves a child behind that never touches CUDA, as a data loader does."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, b"!")
            signal.pause()
        os.read(reader, 1)  # it has been scheduled, and has run its fork handlers
        os.close(reader)
        os.close(writer)
        return child

    def lookup(self, symbol: str, version: int, flags: int):
        """What cuGetProcAddress_v2 and dlsym answer: whether they agree, and whether it is ours."""
        found, status = HANDLE(), c_int()
        result = self._driver().cuGetProcAddress_v2(
            c_char_p(symbol.encode()), byref(found), version, U64(flags), byref(status)
        )
        return [result, owner_of(found.value)]

    def lookup_all(self, questions: list[tuple[str, int, int]]):
        """The owners of what cuGetProcAddress, the newest that there is, answers to each."""
        driver, answers = self._driver(), []
        newest = getattr(driver, "cuGetProcAddress_v2", None)
        for name, version, flags in questions:
            found = HANDLE()
            wanted = c_char_p(name.encode()), byref(found), version, U64(flags)
            if newest is None:
                driver.cuGetProcAddress(*wanted)
            else:
                newest(*wanted, byref(c_int()))
            answers.append(owner_of(found.value))
        return answers

    def call_all(self, names: list[str]):
        """What each function answers when all its arguments are zero."""
        driver, zeros = self._driver(), [HANDLE(0)] * 12
        return [getattr(driver, name)(*zeros) for name in names]

    def rename(self, name: str) -> None:
        """What /proc says this process is called."""
        with open("/proc/self/comm", "w") as comm:
            comm.write(name)

    def symbols(self, names: list[str]):
        """The owners of what dlsym finds in the driver."""
        libc, driver = ctypes.CDLL(None), HANDLE(self._driver()._handle)
        libc.dlsym.restype = HANDLE
        libc.dlsym.argtypes = [HANDLE, c_char_p]
        return [owner_of(libc.dlsym(driver, name.encode())) for name in names]

    def next_of(self, symbol: str):
        """Whose function RTLD_NEXT finds."""
        libc = ctypes.CDLL(None)
        libc.dlsym.restype = HANDLE
        libc.dlsym.argtypes = [HANDLE, c_char_p]
        return owner_of(libc.dlsym(HANDLE(-1), symbol.encode()))

    def environment(self, name: str, value: str | None) -> None:
        """As a tenant would from inside: libc's own environment."""
        libc = ctypes.CDLL(None)
        if value is None:
            libc.unsetenv(name.encode())
        else:
            libc.setenv(name.encode(), value.encode(), 1)

    def close_descriptors(self) -> None:
        """What a daemon does at its start."""
        os.closerange(3, 256)

    def limits(self):
        """Descriptors, umask and signal dispositions: what a library must leave alone."""
        mask = os.umask(0)
        os.umask(mask)
        files = [path for fd in os.listdir("/proc/self/fd") if (path := target_of(fd)) is not None]
        return [mask, files, [str(signal.getsignal(n)) for n in (signal.SIGUSR1, signal.SIGUSR2)]]


class DlInfo(ctypes.Structure):
    _fields_ = (("file", c_char_p), ("base", HANDLE), ("symbol", c_char_p), ("address", HANDLE))


def owner_of(address: int | None):
    """[file name, nearest symbol] of an address; None for NULL."""
    if not address:
        return None
    info = DlInfo()
    ctypes.CDLL(None).dladdr(HANDLE(address), byref(info))
    return [os.path.basename(info.file).decode(), (info.symbol or b"").decode()]


def target_of(fd: str) -> str | None:
    """The file behind a descriptor; None for one that closed meanwhile."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return None


def say(answer: Any) -> None:
    """One line of JSON to who asked."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Answers one command a line until stdin ends."""
    guest = Guest()
    say("ready")
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        say(getattr(guest, name)(*arguments))


if __name__ == "__main__":
    main()
