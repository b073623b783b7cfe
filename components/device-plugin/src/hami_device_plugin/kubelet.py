"""Registration with kubelet: at start, when kubelet's socket appears, when kubelet hangs up."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import grpc
import structlog
from asyncinotify import Inotify, Mask

from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.broadcast import heard

log = structlog.get_logger()

VERSION = "v1beta1"
KUBELET_SOCKET = "kubelet.sock"
REGISTER = "/v1beta1.Registration/Register"
# kubelet's socket is there some microseconds before kubelet listens on it.
FIRST_RETRY_S = 0.002
LAST_RETRY_S = 0.1
# Two plugins that take turns in replacing each other shall not do so in a tight circle.
CALM_S = 0.1
REFUSED_S = 1.0
# kubelet listens within milliseconds of a registration. Two plugins that register in the same
# moment can leave it listening to neither: it dials a path, and the path changed hands.
UNHEARD_S = 2.0
# A subchannel of an earlier attempt would carry its back-off of a second into this one.
CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


class Registrar:
    """Keeps this plugin registered for one resource.

    `needed` says whether kubelet ought to listen to us and does not.
    """

    def __init__(
        self,
        plugin_dir: Path,
        endpoint: str,
        resource: str,
        on_registered: Callable[[], None],
        *,
        needed: Callable[[], bool],
        options: api.DevicePluginOptions,
    ) -> None:
        self._socket = plugin_dir / KUBELET_SOCKET
        self._on_registered, self._needed = on_registered, needed
        self._request = api.RegisterRequest(
            version=VERSION, endpoint=endpoint, resource_name=resource, options=options
        )
        self._wanted = asyncio.Event()

    def again(self) -> None:
        """Register once more, as soon as possible; from the event loop only."""
        self._wanted.set()

    async def run(self) -> None:
        """Register whenever there is cause, until cancelled."""
        watcher = asyncio.create_task(self._watch())
        try:
            self.again()
            while True:
                if not await heard(self._wanted, UNHEARD_S) and not self._needed():
                    continue
                self._wanted.clear()
                await self._register()
                await asyncio.sleep(CALM_S)
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher

    async def _watch(self) -> None:
        with Inotify() as inotify:
            inotify.add_watch(self._socket.parent, Mask.CREATE | Mask.MOVED_TO)
            async for event in inotify:
                if event.name is not None and event.name.name == KUBELET_SOCKET:
                    log.info("kubelet is back")
                    self.again()

    async def _register(self) -> None:
        """Try until kubelet accepts; without its socket there is nothing to do but wait for it."""
        delay = FIRST_RETRY_S
        while self._socket.exists():
            self._wanted.clear()
            try:
                await self._ask()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    log.warning("kubelet refuses this plugin", error=error.details())
                    delay = REFUSED_S
                # A socket that is made anew in the meantime ends the pause, and is worth haste.
                anew = await heard(self._wanted, delay)
                delay = FIRST_RETRY_S if anew else min(delay * 1.5, LAST_RETRY_S)
                continue
            log.info("registered", resource=self._request.resource_name)
            self._on_registered()
            return

    async def _ask(self) -> None:
        target = f"unix:{self._socket}"
        async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
            register = channel.unary_unary(
                REGISTER,
                request_serializer=api.RegisterRequest.SerializeToString,
                response_deserializer=api.Empty.FromString,
            )
            await register(self._request, timeout=5)
