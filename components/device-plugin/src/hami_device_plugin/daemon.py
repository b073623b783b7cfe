"""The running plugin: its parts wired together, started in the right order, ended in order."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import structlog
from prometheus_client import CollectorRegistry

from hami_device_plugin import inventory
from hami_device_plugin.access import CardAccess
from hami_device_plugin.allocate import Allocator, Locked
from hami_device_plugin.broadcast import Broadcast
from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.config import Config
from hami_device_plugin.health import Cards, Health
from hami_device_plugin.hostfiles import HostFiles
from hami_device_plugin.identity import IdentityError
from hami_device_plugin.kubelet import Registrar
from hami_device_plugin.lock import physical_id
from hami_device_plugin.metrics import Metrics
from hami_device_plugin.pods import Pods
from hami_device_plugin.preparer import Parts, Preparer
from hami_device_plugin.prestart import Prestart
from hami_device_plugin.runtime import Runtime
from hami_device_plugin.server import DevicePlugin, options
from hami_device_plugin.settings import Settings
from hami_device_plugin.stock import CheckpointFile, Stock
from hami_device_plugin.sweep import sweep
from hamikit import names
from hamikit.gpu import Card
from hamikit.objects import Pod
from hamikit.service import Lifecycle

if TYPE_CHECKING:
    from hami_device_plugin.cluster_side import ClusterSide

log = structlog.get_logger()

# kubelet deletes files in its plugin folder when it starts, but not in subfolders.
SOCKET_FOLDER = "hami"
FORGOTTEN_LOOKS = 1
GRACE_S = 2.0
DRAIN_S, DRAIN_LOOK_S = 5.0, 0.1


class Connects(Protocol):
    """Makes the API server's side; separate, because its client is slow to import."""

    def __call__(self, daemon: "Daemon") -> "ClusterSide":
        """For this daemon."""


def connect(daemon: "Daemon") -> "ClusterSide":
    """With the real API server."""
    # Takes 0.7 s to import, and kubelet is to be told first: until then pods cannot be admitted.
    from hami_device_plugin import cluster_side  # noqa: PLC0415

    return cluster_side.connect(
        daemon.config.node_name,
        daemon.pods,
        daemon.access,
        lambda: daemon.stock.devices,
        every_s=daemon.config.scan_s,
    )


class Forgotten(Exception):
    """kubelet has dropped this plugin without a word."""


class Daemon:
    """One plugin for one resource."""

    def __init__(
        self,
        config: Config,
        settings: Settings,
        nvml: Cards,
        *,
        connect: Connects = connect,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.config, self.settings = config, settings
        self._nvml, self._connect = nvml, connect
        self.metrics = Metrics(registry or CollectorRegistry())
        self.lifecycle = Lifecycle()
        self.lifecycle.ready_when("kubelet", self._kubelet_missing)
        self.lifecycle.ready_when("cluster", self._cluster_missing)
        self.checkpoint = CheckpointFile(config.checkpoint)
        self.stock = Stock(settings.family.count, self.checkpoint.read)
        self.news = Broadcast(asyncio.get_running_loop())
        self.pods = Pods(self.news.announce, self._grant_changed)
        self.files = HostFiles(config.vgpu_dir)
        self.cdi = CdiFiles(config.cdi_dirs, config.cdi_dynamic_dir)
        runtime = Runtime(config.containerd_config, config.cdi_dynamic_dir)
        self.access = CardAccess(
            lambda: self.settings.wish, runtime, self.cdi.node_specs, self._on_access
        )
        self._cluster: ClusterSide | None = None
        self._lockstep: Locked | None = None
        self._service: DevicePlugin | None = None
        self._cards: tuple[Card, ...] = ()
        self._inode = 0
        self._forgotten = 0
        self._scan_stop = threading.Event()
        self._health = Health(nvml, self._on_cards, every_s=config.scan_s, stop=self._scan_stop)
        self.socket = config.plugin_dir / SOCKET_FOLDER / self._socket_name()

    def _socket_name(self) -> str:
        return f"nvidia-{self.settings.family.count.rpartition('/')[2]}.sock"

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        self.files.prepare()
        preparer = Preparer(self._parts())
        wants = options(prefers=self.settings.prefer_ids)
        registrar = Registrar(
            self.config.plugin_dir,
            f"{SOCKET_FOLDER}/{self.socket.name}",
            self.stock.resource,
            self._on_registered,
            needed=lambda: self._kubelet_missing() is not None and _is(self.socket, self._inode),
            options=wants,
        )
        prestart = Prestart(preparer, self.news, self._fetch, limit_s=self.config.prestart_s)
        service = DevicePlugin(
            self.stock.slots,
            Allocator(self.access, lambda: self._lockstep),
            prestart,
            self.news,
            self.metrics,
            on_stream_end=registrar.again,
            options=wants,
            numa=self._numa,
        )
        self._service = service
        server = await self._serve(service)
        self._inode = self.socket.stat().st_ino
        tasks = [
            asyncio.create_task(registrar.run()),
            asyncio.create_task(self._start_cluster(preparer)),
            asyncio.create_task(self._look_after(preparer)),
        ]
        threading.Thread(target=self._health.run, name="cards", daemon=True).start()
        stopped = asyncio.create_task(stop.wait())
        try:
            # None of the tasks ends by itself except by a fault, which ends the process.
            done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
        finally:
            await self._end(server, [stopped, *tasks])

    def _parts(self) -> Parts:
        return Parts(
            node=self.config.node_name,
            settings=lambda: self.settings,
            stock=self.stock,
            read_checkpoint=self.checkpoint.read,
            pods=self.pods,
            files=self.files,
            cdi=self.cdi,
            access=self.access,
            report=self._report,
        )

    async def _serve(self, service: DevicePlugin) -> grpc.aio.Server:
        self.socket.parent.mkdir(exist_ok=True, mode=0o750)
        # gRPC removes the path it bound when it ends. Under that name there is nothing any more, so
        # a predecessor that ends late leaves its successor's socket in place.
        bound = self.socket.with_name(f"{self.socket.stem}-{os.getpid()}.new")
        bound.unlink(missing_ok=True)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((service.handler(),))
        server.add_insecure_port(f"unix:{bound}")
        await server.start()
        bound.rename(self.socket)
        return server

    async def _start_cluster(self, preparer: Preparer) -> None:
        self._cluster = await asyncio.to_thread(self._connect, self)
        self._lockstep = self._cluster.lockstep(preparer.spell)
        self._cluster.start()
        await asyncio.Event().wait()

    async def _look_after(self, preparer: Preparer) -> None:
        """Now and then: sweep, and let kubelet know of slots that became free."""

        def tidy() -> bool:
            self.files.trim_usage()
            return sweep(preparer.admitted, self.pods, self.files, self.cdi, time.time)

        # Parsing takes most of a second on a node with eight cards; no container shall wait for it.
        await preparer.in_worker(self.access.look)
        while True:
            try:
                await preparer.in_worker(tidy)
            except OSError as error:
                log.warning("sweep failed", error=str(error))
            await preparer.in_worker(self.access.look)
            self.news.announce()
            self._check_remembered()
            await asyncio.sleep(self.config.scan_s)

    def _check_remembered(self) -> None:
        """End, to be started anew, when kubelet offers none of our slots although it listens.

        Two plugins that start in the same moment can come to this: kubelet listens to both, takes
        the later one for the plugin, and forgets the slots when that one goes (kubelet 1.34).
        """
        healthy = any(device.health for device in self.stock.devices or ())
        seen = self._cluster.announcer.seen.status.allocatable if self._cluster else {}
        offered = str(seen.get(self.stock.resource, ""))
        lost = healthy and offered == "0" and self._kubelet_missing() is None
        self._forgotten = self._forgotten + 1 if lost else 0
        # Once is no proof: kubelet tells of a new plugin some seconds after it has come.
        if self._forgotten > FORGOTTEN_LOOKS:
            raise Forgotten(
                f"kubelet listens but offers no {self.stock.resource}: starting afresh, so that it "
                "takes this plugin anew"
            )

    async def _end(self, server: grpc.aio.Server, tasks: Sequence[asyncio.Task[Any]]) -> None:
        self.lifecycle.stop()
        self._scan_stop.set()
        replaced = not _is(self.socket, self._inode)
        if self._cluster is not None and not replaced:
            # A successor that took over our socket is on duty already: nothing to pause for.
            await self._cluster.pause()
            await self._drain()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._service is not None:
            self._service.end_streams()
        await server.stop(GRACE_S)
        if not replaced:
            self.socket.unlink(missing_ok=True)
        if self._cluster is not None:
            await self._cluster.stop()
        self._nvml.close()
        log.info("ended")

    async def _drain(self) -> None:
        """Wait until kubelet has admitted the pods that are bound already: without us it cannot."""
        for _ in range(int(DRAIN_S / DRAIN_LOOK_S)):
            try:
                admitted = {held.pod_uid for held in self.checkpoint.read().held}
            except IdentityError:
                return
            if not self.pods.granted() - admitted:
                return
            await asyncio.sleep(DRAIN_LOOK_S)

    def _on_access(self) -> None:
        self.stock.by_card = self.access.now.binding == names.BINDING_LOCK
        self.news.announce()
        if self._cluster is not None:
            self._cluster.announcer.news()

    def _numa(self, slot: str) -> int | None:
        """The NUMA node to hint at for a slot: only where slots stand for cards."""
        if not (self.settings.numa_hints and self.stock.by_card):
            return None
        card = physical_id(slot)
        return next((found.numa for found in self._cards if found.uuid == card), None)

    def _on_registered(self) -> None:
        self.metrics.registrations.inc()

    def _on_cards(self, cards: tuple[Card, ...], failed: frozenset[str]) -> None:
        self._cards = cards
        devices = inventory.announced(cards, self.settings, failed)
        healthy = sum(device.health for device in devices)
        self.metrics.count_cards(healthy, len(devices) - healthy)
        if self.stock.update(devices):
            log.info("cards", healthy=healthy, unhealthy=len(devices) - healthy)
            self.news.announce()
            if self._cluster is not None:
                self._cluster.announcer.news()

    def _grant_changed(self, pod: Pod, first: str) -> None:
        self._report(
            pod,
            "GrantChanged",
            f"the grant in the pod's annotations was changed after the pod was bound; what counts "
            f"is what it was bound with: {first or 'nothing'}",
        )

    def _report(self, pod: Pod, reason: str, text: str) -> None:
        if self._cluster is not None:
            self._cluster.events.warn(pod, reason, text)

    def _fetch(self, uid: str) -> Pod | None:
        return None if self._cluster is None else self._cluster.fetch(uid)

    def _kubelet_missing(self) -> str | None:
        listens = self._service is not None and self._service.watched
        return None if listens else "not registered"

    def _cluster_missing(self) -> str | None:
        return "not connected" if self._cluster is None else self._cluster.missing()


def _is(path: Path, inode: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_ino == inode
    return False
