"""What kubelet has of us: a socket, a registration, answers."""

from collections.abc import Callable
from pathlib import Path

import grpc

from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.broadcast import Broadcast
from hami_device_plugin.kubelet import Registrar
from hami_device_plugin.listening import is_same, listen
from hami_device_plugin.metrics import Metrics
from hami_device_plugin.server import Allocates, DevicePlugin, Prepares

# kubelet deletes files in its plugin folder when it starts, but not in subfolders.
SOCKET_FOLDER = "hami"
GRACE_S = 2.0


class KubeletSide:
    """One resource, offered to kubelet under a path that a successor may take over.

    `slots` are what there is of it, `numa` says on which NUMA node one lies.
    """

    def __init__(
        self,
        plugin_dir: Path,
        resource: str,
        slots: Callable[[], dict[str, bool]],
        metrics: Metrics,
        news: Broadcast,
        *,
        options: api.DevicePluginOptions,
        numa: Callable[[str], int | None] = lambda _slot: None,
    ) -> None:
        self._slots, self._numa, self._options = slots, numa, options
        self._metrics, self._news = metrics, news
        self.socket = plugin_dir / SOCKET_FOLDER / f"nvidia-{resource.rpartition('/')[2]}.sock"
        self._inode = 0
        self._service: DevicePlugin | None = None
        self._server: grpc.aio.Server | None = None
        self._registrar = Registrar(
            plugin_dir,
            f"{SOCKET_FOLDER}/{self.socket.name}",
            resource,
            metrics.registrations.inc,
            needed=lambda: self.missing() is not None and not self.replaced,
            options=options,
        )

    async def listen(self, allocator: Allocates, prestart: Prepares) -> None:
        """Answer whoever comes to the socket; nobody does before `register`."""
        self._service = DevicePlugin(
            self._slots,
            allocator,
            prestart,
            self._news,
            self._metrics,
            on_stream_end=self._registrar.again,
            options=self._options,
            numa=self._numa,
        )
        self._server = await listen(self.socket, self._service.handler())
        self._inode = self.socket.stat().st_ino

    async def register(self) -> None:
        """Keep kubelet listening to us, until cancelled."""
        await self._registrar.run()

    @property
    def replaced(self) -> bool:
        """Whether a successor has taken over our socket."""
        return not is_same(self.socket, self._inode)

    def missing(self) -> str | None:
        """Whether kubelet listens."""
        listens = self._service is not None and self._service.watched
        return None if listens else "not registered"

    async def end(self) -> None:
        """Take leave; the socket goes unless it is a successor's."""
        if self._service is not None:
            self._service.end_streams()
        if self._server is not None:
            await self._server.stop(GRACE_S)
        if not self.replaced:
            self.socket.unlink(missing_ok=True)
