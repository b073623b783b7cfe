"""What kubelet has of us: a socket, a registration, answers."""

from pathlib import Path

import grpc

from hami_device_plugin.broadcast import Broadcast
from hami_device_plugin.kubelet import Registrar
from hami_device_plugin.listening import is_same, listen
from hami_device_plugin.metrics import Metrics
from hami_device_plugin.server import Allocates, DevicePlugin, Prepares, options
from hami_device_plugin.standing import Standing
from hami_device_plugin.stock import Stock

# kubelet deletes files in its plugin folder when it starts, but not in subfolders.
SOCKET_FOLDER = "hami"
GRACE_S = 2.0


class KubeletSide:
    """One resource, offered to kubelet under a path that a successor may take over."""

    def __init__(
        self,
        plugin_dir: Path,
        standing: Standing,
        stock: Stock,
        metrics: Metrics,
        news: Broadcast,
    ) -> None:
        self._standing, self._stock, self._metrics, self._news = standing, stock, metrics, news
        self._options = options(prefers=standing.settings.prefer_ids)
        self.socket = (
            plugin_dir / SOCKET_FOLDER / f"nvidia-{stock.resource.rpartition('/')[2]}.sock"
        )
        self._inode = 0
        self._service: DevicePlugin | None = None
        self._server: grpc.aio.Server | None = None
        self._registrar = Registrar(
            plugin_dir,
            f"{SOCKET_FOLDER}/{self.socket.name}",
            stock.resource,
            metrics.registrations.inc,
            needed=lambda: self.missing() is not None and not self.replaced,
            options=self._options,
        )

    async def listen(self, allocator: Allocates, prestart: Prepares) -> None:
        """Answer whoever comes to the socket; nobody does before `register`."""
        self._service = DevicePlugin(
            self._stock.slots,
            allocator,
            prestart,
            self._news,
            self._metrics,
            on_stream_end=self._registrar.again,
            options=self._options,
            numa=self._standing.numa,
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
