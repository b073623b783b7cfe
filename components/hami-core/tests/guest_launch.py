"""A guest's ways to launch kernels: plain, extended, cooperative, old, and as graphs."""

import ctypes
import os
import threading
from ctypes import byref, c_uint, c_uint64, c_void_p
from typing import Any

from guest_fork import in_child

U64, HANDLE = c_uint64, c_void_p


class LaunchConfig(ctypes.Structure):
    _fields_ = (
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared", c_uint),
        ("stream", HANDLE),
        ("attributes", HANDLE),
        ("count", c_uint),
    )


class LaunchParameters(ctypes.Structure):
    _fields_ = (
        ("function", HANDLE),
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared", c_uint),
        ("stream", HANDLE),
        ("parameters", HANDLE),
    )


class LaunchCalls:
    """Commands of a Guest."""

    _driver: Any
    init: Any

    def _kernel(self, name: str) -> HANDLE:
        module, function = HANDLE(), HANDLE()
        self._driver().cuModuleLoadData(byref(module), b"an opaque image")
        self._driver().cuModuleGetFunction(byref(function), module, name.encode())
        return function

    def kernels(self, symbol: str, kernel: str, times: int = 1, blocks: int = 1) -> list[int]:
        """Launches a kernel some times in one of the ways that there are, and waits for it."""
        call, function = getattr(self._driver(), symbol), self._kernel(kernel)
        grid = (c_uint(blocks), 1, 1, 32, 1, 1, 0)
        config = LaunchConfig((blocks, 1, 1), (32, 1, 1))
        stream = HANDLE()
        self._driver().cuStreamCreate(byref(stream), 1)
        one = LaunchParameters(function, (blocks, 1, 1), (32, 1, 1), 0, stream)
        arguments = {
            "cuLaunchKernel": (function, *grid, None, None, None),
            "cuLaunchKernelEx": (byref(config), function, None, None),
            "cuLaunchCooperativeKernel": (function, *grid, None, None),
            "cuLaunchCooperativeKernelMultiDevice": (byref(one), 1, 0),
            "cuLaunch": (function,),
            "cuLaunchGrid": (function, blocks, 1),
            "cuLaunchGridAsync": (function, blocks, 1, None),
            "cuGraphLaunch": (
                symbol.startswith("cuGraph") and self._captured_kernels(function),
                None,
            ),
        }[symbol.removesuffix("_ptsz")]
        results = [call(*arguments) for _ in range(times)]
        return [*results, self._driver().cuCtxSynchronize()]

    def _captured_kernels(self, function: HANDLE, times: int = 1) -> HANDLE:
        """An executable graph of launches that were captured."""
        stream, graph, exec_ = HANDLE(), HANDLE(), HANDLE()
        cuda = self._driver()
        cuda.cuStreamCreate(byref(stream), 1)
        cuda.cuStreamBeginCapture_v2(stream, 0)
        for _ in range(times):
            cuda.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, None, None)
        cuda.cuStreamEndCapture(stream, byref(graph))
        cuda.cuGraphInstantiateWithFlags(byref(exec_), graph, U64(0))
        return exec_

    def capture_kernels(self, kernel: str, times: int) -> None:
        """Captures launches and runs none of them."""
        self._captured_kernels(self._kernel(kernel), times)

    def fork_launch(self, kernel: str, times: int) -> list[int]:
        """What a forked child, which starts with the driver anew, gets for its launches."""
        return in_child(lambda: [self.init(), *self.kernels("cuLaunchKernel", kernel, times)])

    def threads_launch(self, kernel: str, times: int, threads: int) -> list[int]:
        """What threads, one after the other, get for their launches."""
        results: list[int] = []

        def work() -> None:
            results.append(self.init())
            results.extend(self.kernels("cuLaunchKernel", kernel, times))

        for _ in range(threads):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        return results

    def alternate(self, kernel: str, times: int) -> list[int]:
        """Launches on two devices in turns."""
        contexts, functions = [HANDLE(), HANDLE()], []
        for device, context in enumerate(contexts):
            self._driver().cuDevicePrimaryCtxRetain(byref(context), device)
            self._driver().cuCtxSetCurrent(context)
            functions.append(self._kernel(kernel))
        results = []
        for _ in range(times):
            for context, function in zip(contexts, functions, strict=True):
                self._driver().cuCtxSetCurrent(context)
                grid = (1, 1, 1, 32, 1, 1, 0)
                results.append(self._driver().cuLaunchKernel(function, *grid, None, None, None))
                results.append(self._driver().cuCtxSynchronize())
        return results

    def threads(self) -> int:
        """How many threads this process has."""
        return len(os.listdir("/proc/self/task"))
