"""A device plugin that does as little as kubelet allows; runs in the image of ours.

Argument: the resource. Answers Allocate with nothing and wants no PreStartContainer.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from hami_device_plugin.api import deviceplugin_pb2 as api

FOLDER = Path("/var/lib/kubelet/device-plugins")
COUNT = 40


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


async def main(resource: str) -> None:
    """Serve and register once."""
    socket = FOLDER / "trivial.sock"
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
    async with grpc.aio.insecure_channel(f"unix:{FOLDER / 'kubelet.sock'}") as channel:
        register = channel.unary_unary(
            "/v1beta1.Registration/Register",
            request_serializer=api.RegisterRequest.SerializeToString,
            response_deserializer=api.Empty.FromString,
        )
        await register(
            api.RegisterRequest(version="v1beta1", endpoint=socket.name, resource_name=resource)
        )
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
