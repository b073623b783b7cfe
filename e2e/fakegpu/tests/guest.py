"""A process that does to libcuda.so.1 what it is told, one JSON line a command."""

import ctypes
import json
import os
import sys
import threading

U64 = ctypes.c_uint64
MIB = 1 << 20


class Driver:
    """The few driver calls that the tests compose."""

    def __init__(self) -> None:
        self.cuda = ctypes.CDLL("libcuda.so.1")

    def call(self, name, *args):
        """Calls a symbol and returns its result code."""
        return getattr(self.cuda, name)(*args)

    def init(self):
        return self.call("cuInit", 0)

    def count(self):
        n = ctypes.c_int()
        return [self.call("cuDeviceGetCount", ctypes.byref(n)), n.value]

    def uuid(self, device=0):
        raw = (ctypes.c_ubyte * 16)()
        return [self.call("cuDeviceGetUuid_v2", raw, device), bytes(raw).hex()]

    def retain(self, device=0):
        ctx = ctypes.c_void_p()
        rc = self.call("cuDevicePrimaryCtxRetain", ctypes.byref(ctx), device)
        return rc or self.call("cuCtxSetCurrent", ctx)

    def release(self, device=0):
        return self.call("cuDevicePrimaryCtxRelease_v2", device)

    def create(self, device=0):
        ctx = ctypes.c_void_p()
        rc = self.call("cuCtxCreate_v2", ctypes.byref(ctx), 0, device)
        return [rc, ctx.value]

    def destroy(self, ctx):
        return self.call("cuCtxDestroy_v2", ctypes.c_void_p(ctx))

    def alloc(self, size, symbol="cuMemAlloc_v2"):
        va = U64()
        rc = self.call(symbol, ctypes.byref(va), ctypes.c_size_t(size))
        return [rc, va.value]

    def free(self, va):
        return self.call("cuMemFree_v2", U64(va))

    def info(self):
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        rc = self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return [rc, free.value, total.value]

    def pitch(self, width, height):
        va, pitch = U64(), ctypes.c_size_t()
        size = ctypes.c_size_t
        rc = self.call(
            "cuMemAllocPitch_v2",
            ctypes.byref(va),
            ctypes.byref(pitch),
            size(width),
            size(height),
            4,
        )
        return [rc, va.value, pitch.value]

    def managed(self, size):
        """Allocates managed memory and writes to it from the host."""
        va = U64()
        rc = self.call("cuMemAllocManaged", ctypes.byref(va), ctypes.c_size_t(size), 1)
        if rc == 0:
            ctypes.memset(va.value, 0x5A, 4096)
            rc = 0 if ctypes.string_at(va.value, 2) == b"ZZ" else -1
        return [rc, va.value]

    def pool_alloc(self, size):
        va = U64()
        rc = self.call("cuMemAllocAsync", ctypes.byref(va), ctypes.c_size_t(size), None)
        return [rc, va.value]

    def pool_free(self, va):
        return self.call("cuMemFreeAsync", U64(va), None)

    def synchronize(self):
        return self.call("cuStreamSynchronize", None)

    def create_physical(self, size):
        prop = (ctypes.c_int * 8)(1, 0, 1, 0)  # pinned, device 0
        handle = U64()
        rc = self.call("cuMemCreate", ctypes.byref(handle), ctypes.c_size_t(size), prop, U64(0))
        return [rc, handle.value]

    def map(self, handle, size):
        va = U64()
        size = ctypes.c_size_t(size)
        rc = self.call("cuMemAddressReserve", ctypes.byref(va), size, size, U64(0), U64(0))
        rc = rc or self.call("cuMemMap", va, size, ctypes.c_size_t(0), U64(handle), U64(0))
        return [rc, va.value]

    def unmap(self, va, size):
        return self.call("cuMemUnmap", U64(va), ctypes.c_size_t(size))

    def release_physical(self, handle):
        return self.call("cuMemRelease", U64(handle))

    def array(self, width, height):
        class Descriptor(ctypes.Structure):
            _fields_ = (
                ("width", ctypes.c_size_t),
                ("height", ctypes.c_size_t),
                ("format", ctypes.c_int),
                ("channels", ctypes.c_uint),
            )

        out = ctypes.c_void_p()
        rc = self.call(
            "cuArrayCreate_v2", ctypes.byref(out), ctypes.byref(Descriptor(width, height, 0x20, 1))
        )
        return [rc, out.value]

    def destroy_array(self, handle):
        return self.call("cuArrayDestroy", ctypes.c_void_p(handle))

    def timeline(self, kernel, launches, blocks=1):
        """Milliseconds between the first and the last of some launches, and a query before."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        first, last = ctypes.c_void_p(), ctypes.c_void_p()
        passed = ctypes.c_float()
        self.call("cuModuleLoadData", ctypes.byref(module), b"image")
        self.call("cuModuleGetFunction", ctypes.byref(function), module, kernel.encode())
        for event in (first, last):
            self.call("cuEventCreate", ctypes.byref(event), 0)
        for i in range(launches):
            args = (blocks, 1, 1, 32, 1, 1, 0, None, None, None)
            self.call("cuLaunchKernel", function, *args)
            if i == 0:
                self.call("cuEventRecord", first, None)
        self.call("cuEventRecord", last, None)
        early = self.call("cuEventQuery", last)
        self.call("cuEventSynchronize", last)
        late = self.call("cuEventQuery", last)
        self.call("cuEventElapsedTime", ctypes.byref(passed), first, last)
        return [early, late, passed.value]

    def streams(self, kernel, count):
        """Milliseconds until as many streams as asked have each run one kernel."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), b"image")
        self.call("cuModuleGetFunction", ctypes.byref(function), module, kernel.encode())
        start, ends, passed = ctypes.c_void_p(), [], []
        self.call("cuEventCreate", ctypes.byref(start), 0)
        self.call("cuEventRecord", start, None)
        for _ in range(count):
            stream, end = ctypes.c_void_p(), ctypes.c_void_p()
            self.call("cuStreamCreate", ctypes.byref(stream), 1)
            self.call("cuEventCreate", ctypes.byref(end), 0)
            self.call("cuLaunchKernel", function, 1, 1, 1, 32, 1, 1, 0, stream, None, None)
            self.call("cuEventRecord", end, stream)
            ends.append(end)
        for end in ends:
            one = ctypes.c_float()
            self.call("cuEventSynchronize", end)
            self.call("cuEventElapsedTime", ctypes.byref(one), start, end)
            passed.append(one.value)
        return max(passed)

    def launch(self, kernel):
        """Queues one kernel and does not wait for it."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), b"image")
        self.call("cuModuleGetFunction", ctypes.byref(function), module, kernel.encode())
        return self.call("cuLaunchKernel", function, 1, 1, 1, 32, 1, 1, 0, None, None, None)

    def fork(self, size):
        """What a fork's child sees before and after its own cuInit, and what it could get."""
        reader, writer = os.pipe()
        if os.fork() == 0:
            before = self.call("cuMemGetInfo_v2", None, None)
            free_stale = [before, self.init(), self.call("cuMemGetInfo_v2", None, None)]
            rcs = [*free_stale, self.retain(), self.alloc(size)[0]]
            os.write(writer, json.dumps(rcs).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            answer = json.loads(pipe.read())
        os.wait()
        return answer

    def graph(self, kernel, nodes):
        """Milliseconds that one launch of a captured graph takes on the timeline."""
        module, function, stream = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        graph, instance = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), b"image")
        self.call("cuModuleGetFunction", ctypes.byref(function), module, kernel.encode())
        self.call("cuStreamCreate", ctypes.byref(stream), 1)
        self.call("cuStreamBeginCapture_v2", stream, 0)
        for _ in range(nodes):
            self.call("cuLaunchKernel", function, 1, 1, 1, 32, 1, 1, 0, stream, None, None)
        self.call("cuStreamEndCapture", stream, ctypes.byref(graph))
        self.call("cuGraphInstantiateWithFlags", ctypes.byref(instance), graph, U64(0))
        first, last, passed = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float()
        for event in (first, last):
            self.call("cuEventCreate", ctypes.byref(event), 0)
            self.call("cuGraphLaunch", instance, stream)
            self.call("cuEventRecord", event, stream)
        self.call("cuEventSynchronize", last)
        self.call("cuEventElapsedTime", ctypes.byref(passed), first, last)
        return passed.value

    def threads(self, count, rounds):
        """Allocates and frees in several threads at once; returns every result but success."""
        bad = []

        def work():
            ctx = ctypes.c_void_p()
            self.call("cuDevicePrimaryCtxRetain", ctypes.byref(ctx), 0)
            self.call("cuCtxSetCurrent", ctx)
            for i in range(rounds):
                rc, va = self.alloc(512 * (1 + i % 7))
                bad.extend(rc for rc in (rc, self.free(va)) if rc != 0)

        workers = [threading.Thread(target=work) for _ in range(count)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return bad

    def hammer(self, *sizes_mib):
        """Allocates and frees until killed."""
        print("0", flush=True)
        while True:
            va = [self.alloc(n * MIB)[1] for n in sizes_mib]
            for one in va:
                self.free(one)


def main() -> None:
    """Answers commands until standard input ends."""
    driver = Driver()
    for line in sys.stdin:
        name, *args = json.loads(line)
        print(json.dumps(getattr(driver, name)(*args)), flush=True)


main()
