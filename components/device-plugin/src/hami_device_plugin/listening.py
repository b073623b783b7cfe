"""The socket on which this plugin answers kubelet."""

import contextlib
import os
from pathlib import Path
from typing import Any

import grpc


async def listen(socket: Path, handler: Any) -> grpc.aio.Server:
    """A running server on this path, in a folder that only root can enter."""
    socket.parent.mkdir(exist_ok=True, mode=0o750)
    # gRPC removes the path it bound when it ends. Under that name there is nothing any more, so
    # a predecessor that ends late leaves its successor's socket in place.
    bound = socket.with_name(f"{socket.stem}-{os.getpid()}.new")
    bound.unlink(missing_ok=True)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{bound}")
    await server.start()
    bound.rename(socket)
    return server


def is_same(path: Path, inode: int) -> bool:
    """Whether a path leads to this inode."""
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_ino == inode
    return False
