"""The guest's calls around memory that several processes, or several interfaces, share."""

import array
import ctypes
import os
import socket
from ctypes import byref, c_int, c_uint, c_uint64, c_void_p
from typing import Any

U64, HANDLE = c_uint64, c_void_p
POSIX_FD = 1


class IpcHandle(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_ubyte * 64),)


class ExternalMemory(ctypes.Structure):
    """CUDA_EXTERNAL_MEMORY_HANDLE_DESC."""

    _fields_ = (
        ("type", c_int),
        ("gap", c_int),
        ("fd", c_int),
        ("rest_of_handle", c_int * 3),
        ("size", U64),
        ("flags", c_uint),
        ("rest", c_uint * 17),
    )


class ExternalBuffer(ctypes.Structure):
    """CUDA_EXTERNAL_MEMORY_BUFFER_DESC."""

    _fields_ = (("offset", U64), ("size", U64), ("flags", c_uint), ("rest", c_uint * 17))


class ShareCalls:
    """Commands, as in guest.py."""

    def _driver(self) -> Any:
        raise NotImplementedError

    def ipc_handle(self, pointer: int):
        handle = IpcHandle()
        result = self._driver().cuIpcGetMemHandle(byref(handle), U64(pointer))
        return [result, list(handle.bytes)]

    def ipc_open(self, content: list[int], suffix: str = "_v2"):
        pointer, handle = U64(), IpcHandle((ctypes.c_ubyte * 64)(*content))
        call = getattr(self._driver(), "cuIpcOpenMemHandle" + suffix)
        call.argtypes = [c_void_p, IpcHandle, c_uint]
        return [call(byref(pointer), handle, 1), pointer.value]

    def ipc_close(self, pointer: int) -> int:
        return self._driver().cuIpcCloseMemHandle(U64(pointer))

    def export(self, handle: int, path: str) -> int:
        """Sends a physical allocation's descriptor to whoever listens at `path`."""
        fd = c_int(-1)
        result = self._driver().cuMemExportToShareableHandle(
            byref(fd), U64(handle), POSIX_FD, U64(0)
        )
        if result == 0:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd.value]))
                sender.sendmsg([b"!"], [rights], 0, path)
            os.close(fd.value)
        return result

    def listen(self, path: str) -> None:
        """Takes descriptors at `path` from now on."""
        self._receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._receiver.bind(path)

    def imported(self):
        """The physical allocation whose descriptor came first."""
        _, ancillary, _, _ = self._receiver.recvmsg(1, socket.CMSG_SPACE(4))
        fd = array.array("i", ancillary[0][2])[0]
        handle = U64()
        result = self._driver().cuMemImportFromShareableHandle(byref(handle), HANDLE(fd), POSIX_FD)
        os.close(fd)
        return [result, handle.value]

    def external(self, size: int):
        """Memory of another interface, mapped here: its pointer and itself."""
        external, pointer = HANDLE(), U64()
        description = ExternalMemory(POSIX_FD, fd=os.memfd_create("external"), size=size)
        driver = self._driver()
        result = driver.cuImportExternalMemory(byref(external), byref(description))
        result = result or driver.cuExternalMemoryGetMappedBuffer(
            byref(pointer), external, byref(ExternalBuffer(0, size))
        )
        return [result, pointer.value, external.value]

    def external_end(self, external: int) -> int:
        return self._driver().cuDestroyExternalMemory(HANDLE(external))
