"""A device plugin that does as little as kubelet allows; runs in the image of ours.

Argument: the resource. Answers Allocate with nothing and wants no PreStartContainer. As others do,
it registers again when kubelet's socket appears anew.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from asyncinotify import Inotify, Mask

from hami_device_plugin.api import deviceplugin_pb2 as api

FOLDER = Path("/var/lib/kubelet/device-plugins")
KUBELET = FOLDER / "kubelet.sock"
COUNT, RETRY_S = 40, 0.01


async def options(_request: Any, _context: Any) -> Any:
    """None wanted."""
    return api.DevicePluginOptions()


async def listed(_request: Any, _context: Any) -> AsyncIterator[Any]:
    """All healthy, for ever."""
    devices = [api.Device(ID=f"plain-{n}", health="Healthy") for n in range(COUNT)]
    yield api.ListAndWatchResponse(devices=devices)
    await asyncio.Event().wait()


async def allocate(request: Any, _context: Any) -> Any:
    """Nothing for each container."""
    answers = [api.ContainerAllocateResponse() for _ in request.container_requests]
    return api.AllocateResponse(container_responses=answers)


async def register(endpoint: str, resource: str) -> None:
    """Until kubelet accepts: its socket is there some microseconds before it listens."""
    request = api.RegisterRequest(version="v1beta1", endpoint=endpoint, resource_name=resource)
    while True:
        local = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(f"unix:{KUBELET}", options=local) as channel:
            ask = channel.unary_unary(
                "/v1beta1.Registration/Register",
                request_serializer=api.RegisterRequest.SerializeToString,
                response_deserializer=api.Empty.FromString,
            )
            try:
                await ask(request, timeout=5)
            except grpc.aio.AioRpcError as error:
                print(error.details(), flush=True)
            else:
                return
        await asyncio.sleep(RETRY_S)


async def main(resource: str) -> None:
    """Serve, in a subfolder: at its start kubelet removes what lies beside its socket."""
    socket = FOLDER / "trivial" / "trivial.sock"
    socket.parent.mkdir(exist_ok=True)
    socket.unlink(missing_ok=True)
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    rows = {
        "GetDevicePluginOptions": unary(
            options, api.Empty.FromString, api.DevicePluginOptions.SerializeToString
        ),
        "ListAndWatch": stream(
            listed, api.Empty.FromString, api.ListAndWatchResponse.SerializeToString
        ),
        "Allocate": unary(
            allocate, api.AllocateRequest.FromString, api.AllocateResponse.SerializeToString
        ),
    }
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", rows)
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    endpoint = str(socket.relative_to(FOLDER))
    with Inotify() as inotify:
        inotify.add_watch(FOLDER, Mask.CREATE | Mask.MOVED_TO)
        await register(endpoint, resource)
        async for event in inotify:
            if event.name is not None and event.name.name == KUBELET.name:
                await register(endpoint, resource)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
