"""The running plugin: its parts wired together, started in the right order, ended in order."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from prometheus_client import CollectorRegistry

from hami_device_plugin.access import CardAccess
from hami_device_plugin.afresh import DriverReplaced, SettingsChanged, StartAfresh
from hami_device_plugin.allocate import Allocator, Locked
from hami_device_plugin.broadcast import Broadcast
from hami_device_plugin.carving import Capabilities
from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.config import Config
from hami_device_plugin.connecting import Connects, connect
from hami_device_plugin.health import Cards, Health, Report
from hami_device_plugin.hostfiles import HostFiles
from hami_device_plugin.identity import IdentityError
from hami_device_plugin.kubelet import Registrar
from hami_device_plugin.listening import is_same, listen
from hami_device_plugin.metrics import Metrics
from hami_device_plugin.mig import Divisions
from hami_device_plugin.parts import Parts
from hami_device_plugin.pods import Pods
from hami_device_plugin.preparer import Preparer
from hami_device_plugin.prestart import Prestart
from hami_device_plugin.readers import Readers
from hami_device_plugin.runtime import Runtime
from hami_device_plugin.server import DevicePlugin, options
from hami_device_plugin.settings import Settings
from hami_device_plugin.settings_files import SettingsFiles
from hami_device_plugin.standing import Standing
from hami_device_plugin.stock import CheckpointFile, Memory, Stock
from hami_device_plugin.sweep import tidy
from hamikit import names
from hamikit.objects import Node, Pod
from hamikit.service import Lifecycle
from hamikit.truce import Truce

if TYPE_CHECKING:
    from hami_device_plugin.cluster_side import ClusterSide

log = structlog.get_logger()

# kubelet deletes files in its plugin folder when it starts, but not in subfolders.
SOCKET_FOLDER = "hami"
GRACE_S = 2.0
DRAIN_S, DRAIN_LOOK_S = 5.0, 0.1


class Daemon:
    """One plugin for one resource."""

    def __init__(
        self,
        config: Config,
        settings: Settings,
        nvml: Cards,
        *,
        files: SettingsFiles | None = None,
        connect: Connects = connect,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.config = config
        self._nvml, self._connect = nvml, connect
        self._files = files or SettingsFiles(lambda: settings)
        self.metrics = Metrics(registry or CollectorRegistry())
        self.metrics.settings.set_function(lambda: float(self._files.fault is None))
        self.lifecycle = Lifecycle()
        self.lifecycle.ready_when("kubelet", self._kubelet_missing)
        self.lifecycle.ready_when("cluster", self._cluster_missing)
        self.checkpoint = CheckpointFile(config.checkpoint)
        self.stock = Stock(settings.family.count, self.checkpoint.read)
        self.divisions = Divisions(nvml.open, lambda: self.settings.mig_groups)
        self.standing = Standing(
            settings,
            self.stock,
            self.metrics,
            on_news=self._tell,
            nvml=nvml.open if config.topology else None,
            divide=self.divisions.look,
        )
        self.loop = asyncio.get_running_loop()
        self.news = Broadcast(self.loop)
        self.pods = Pods(self.news.announce, self._grant_changed)
        self.files = HostFiles(config.vgpu_dir)
        self.readers = Readers(self.loop)
        self.cdi = CdiFiles(config.cdi_dirs, config.cdi_dynamic_dir, self.readers.expect)
        runtime = Runtime(config.containerd_config, config.cdi_dynamic_dir)
        self.access = CardAccess(
            lambda: self.settings.wish,
            runtime,
            self.cdi.node_specs,
            self._on_access,
            faults=self.cdi.faults,
            prefers_cdi=config.cdi_telling.preferred,
        )
        self._cluster: ClusterSide | None = None
        self._lockstep: Locked | None = None
        self._service: DevicePlugin | None = None
        self._afresh: asyncio.Future[None] = self.loop.create_future()
        self._inode = 0
        self._scan_stop = threading.Event()
        self.truce = Truce(names.NODE_MIG_PAUSE_PLUGIN)
        self._health = Health(
            nvml,
            self._on_report,
            policy=config.xids,
            stop=self._scan_stop,
            quiet_s=config.quiet_s,
            truce=self.truce,
            on_xid=lambda uuid, xid: self.metrics.xids.labels(uuid, str(xid)).inc(),
        )
        self.socket = config.plugin_dir / SOCKET_FOLDER / self._socket_name()

    @property
    def settings(self) -> Settings:
        """The operator's settings as of now."""
        return self.standing.settings

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
            needed=lambda: (
                self._kubelet_missing() is not None and is_same(self.socket, self._inode)
            ),
            options=wants,
        )
        prestart = Prestart(
            preparer,
            self.news,
            self._fetch,
            self.readers.read,
            limit_s=self.config.prestart_s,
        )
        service = DevicePlugin(
            self.stock.slots,
            Allocator(self.access, lambda: self._lockstep),
            prestart,
            self.news,
            self.metrics,
            on_stream_end=registrar.again,
            options=wants,
            numa=self.standing.numa,
        )
        self._service = service
        server = await listen(self.socket, service.handler())
        self._inode = self.socket.stat().st_ino
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(registrar.run()),
            asyncio.create_task(self.readers.run()),
            asyncio.create_task(self._start_cluster(preparer)),
            asyncio.create_task(self._look_after(preparer)),
            asyncio.create_task(self._files.follow(self._adopt)),
        ]
        threading.Thread(target=self._health.run, name="cards", daemon=True).start()
        stopped = asyncio.create_task(stop.wait())
        try:
            # None of the tasks ends by itself except by a fault, which ends the process.
            waiting: list[asyncio.Future[Any]] = [stopped, self._afresh, *tasks]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for ended in done - {stopped}:
                ended.result()
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
            report=self._warn,
            cdi_telling=self.config.cdi_telling,
            divisions=self.divisions.of,
            capabilities=Capabilities(),
        )

    async def _start_cluster(self, preparer: Preparer) -> None:
        self._cluster = await asyncio.to_thread(self._connect, self)
        self._lockstep = self._cluster.lockstep(preparer.spell)
        self._cluster.start()
        await asyncio.Event().wait()

    async def _look_after(self, preparer: Preparer) -> None:
        """Now and then: sweep, and let kubelet know of slots that became free."""
        # Parsing takes most of a second on a node with eight cards; no container shall wait for it.
        await preparer.in_worker(self.access.look)
        memory = Memory(self.stock.resource, self._node_now)
        while True:
            await preparer.in_worker(lambda: self._tidy(preparer))
            self.news.announce()
            healthy = any(device.health for device in self.stock.devices or ())
            seen = self._cluster.announcer.seen if self._cluster else Node()
            offers = healthy and self._kubelet_missing() is None
            await asyncio.to_thread(memory.check, seen, offers=offers)
            await asyncio.sleep(self.config.scan_s)

    def _tidy(self, preparer: Preparer) -> None:
        tidy(preparer.admitted, self.pods, self.files, self.cdi, time.time)
        self.access.look()

    async def _end(self, server: grpc.aio.Server, tasks: Sequence[asyncio.Task[Any]]) -> None:
        self.lifecycle.stop()
        self._scan_stop.set()
        replaced = not is_same(self.socket, self._inode)
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
        self._tell()

    def _tell(self) -> None:
        """Kubelet and the node's object are to say what there is now."""
        self.news.announce()
        if self._cluster is not None:
            self._cluster.announcer.news()

    def _on_registered(self) -> None:
        self.metrics.registrations.inc()

    def _on_report(self, report: Report) -> None:
        self.standing.report(report)
        if report.fault and self._nvml.replaced:
            self._end_for(DriverReplaced(f"the driver was replaced: {report.fault}"))

    def _adopt(self, settings: Settings) -> None:
        now = self.settings
        if (settings.family, settings.prefer_ids) != (now.family, now.prefer_ids):
            raise SettingsChanged("settings that kubelet is told at registration were changed")
        self.standing.adopt(settings)
        self.access.look()

    def _end_for(self, cause: StartAfresh) -> None:
        """End, from any thread, to be started afresh."""

        def end() -> None:
            if not self._afresh.done():
                self._afresh.set_exception(cause)

        self.loop.call_soon_threadsafe(end)

    def _grant_changed(self, pod: Pod, first: str) -> None:
        self._warn(
            pod,
            "GrantChanged",
            f"the grant in the pod's annotations was changed after the pod was bound; what counts "
            f"is what it was bound with: {first or 'nothing'}",
        )

    def _warn(self, pod: Pod, reason: str, text: str) -> None:
        if self._cluster is not None:
            self._cluster.events.warn(pod, reason, text)

    def _fetch(self, uid: str) -> Pod | None:
        return None if self._cluster is None else self._cluster.fetch(uid)

    def _node_now(self) -> Node | None:
        return None if self._cluster is None else self._cluster.node_now()

    def _kubelet_missing(self) -> str | None:
        listens = self._service is not None and self._service.watched
        return None if listens else "not registered"

    def _cluster_missing(self) -> str | None:
        return "not connected" if self._cluster is None else self._cluster.missing()
