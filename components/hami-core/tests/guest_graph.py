"""The guest's calls around CUDA graphs, their memory nodes and the capture of streams."""

import ctypes
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p
from typing import Any

U64, HANDLE = c_uint64, c_void_p


class Location(ctypes.Structure):
    _fields_ = (("type", c_int), ("id", c_int))


class AllocNode(ctypes.Structure):
    """CUDA_MEM_ALLOC_NODE_PARAMS."""

    _fields_ = (
        ("type", c_int),
        ("handles", c_int),
        ("location", Location),
        ("rest", U64 * 9),
        ("access", HANDLE),
        ("access_count", c_size_t),
        ("bytes", c_size_t),
        ("pointer", U64),
    )


class InstantiateParams(ctypes.Structure):
    _fields_ = (("flags", U64), ("stream", HANDLE), ("error", HANDLE), ("result", c_int))


class GraphCalls:
    """Commands, as in guest.py."""

    def _driver(self) -> Any:
        raise NotImplementedError

    def graph(self) -> int:
        graph = HANDLE()
        assert self._driver().cuGraphCreate(byref(graph), 0) == 0
        return graph.value or 0

    def graph_alloc(self, graph: int, size: int, device: int = 0):
        node, params = HANDLE(), AllocNode(1, 0, Location(1, device), bytes=size)
        result = self._driver().cuGraphAddMemAllocNode(
            byref(node), HANDLE(graph), None, c_size_t(0), byref(params)
        )
        return [result, params.pointer]

    def graph_free(self, graph: int, pointer: int) -> int:
        node = HANDLE()
        return self._driver().cuGraphAddMemFreeNode(
            byref(node), HANDLE(graph), None, c_size_t(0), U64(pointer)
        )

    def graph_child(self, graph: int, child: int) -> int:
        node = HANDLE()
        return self._driver().cuGraphAddChildGraphNode(
            byref(node), HANDLE(graph), None, c_size_t(0), HANDLE(child)
        )

    def instantiate(self, graph: int, flags: int = 0, form: str = "WithFlags"):
        executable = HANDLE()
        call = getattr(self._driver(), "cuGraphInstantiate" + form)
        more: tuple[Any, ...] = (U64(flags),)
        if form.startswith("WithParams"):
            more = (byref(InstantiateParams(flags)),)
        elif form in ("", "_v2"):
            more = (None, None, c_size_t(0))
        return [call(byref(executable), HANDLE(graph), *more), executable.value]

    def launch(self, executable: int, suffix: str = "", stream: int = 0) -> int:
        call = getattr(self._driver(), "cuGraphLaunch" + suffix)
        return call(HANDLE(executable), HANDLE(stream))

    def upload(self, executable: int, suffix: str = "") -> int:
        return getattr(self._driver(), "cuGraphUpload" + suffix)(HANDLE(executable), None)

    def exec_destroy(self, executable: int) -> int:
        return self._driver().cuGraphExecDestroy(HANDLE(executable))

    def graph_trim(self, device: int = 0) -> int:
        return self._driver().cuDeviceGraphMemTrim(device)

    def stream(self) -> int:
        stream = HANDLE()
        assert self._driver().cuStreamCreate(byref(stream), 1) == 0
        return stream.value or 0

    def capture(self, stream: int) -> int:
        return self._driver().cuStreamBeginCapture_v2(HANDLE(stream), 0)

    def captured(self, stream: int):
        graph = HANDLE()
        return [self._driver().cuStreamEndCapture(HANDLE(stream), byref(graph)), graph.value]
