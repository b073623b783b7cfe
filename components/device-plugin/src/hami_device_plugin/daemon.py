"""The running plugin: its parts wired together, started in the right order, ended in order."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from hami_device_plugin.access import CardAccess
from hami_device_plugin.afresh import StartAfresh
from hami_device_plugin.allocate import Allocator
from hami_device_plugin.broadcast import Broadcast
from hami_device_plugin.cards_side import CardsSide
from hami_device_plugin.carving import Capabilities
from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.config import Config
from hami_device_plugin.connecting import Connects, connect
from hami_device_plugin.health import Cards
from hami_device_plugin.hostfiles import HostFiles
from hami_device_plugin.identity import IdentityError
from hami_device_plugin.kubelet_side import KubeletSide
from hami_device_plugin.metrics import Metrics
from hami_device_plugin.parts import Parts
from hami_device_plugin.pods import Pods
from hami_device_plugin.preparer import Preparer
from hami_device_plugin.prestart import Prestart
from hami_device_plugin.readers import Readers
from hami_device_plugin.runtime import Runtime
from hami_device_plugin.server import options
from hami_device_plugin.settings import Settings
from hami_device_plugin.settings_files import SettingsFiles
from hami_device_plugin.statics import Statics
from hami_device_plugin.stock import CheckpointFile, Memory, Stock
from hami_device_plugin.sweep import tidy
from hami_device_plugin.uplink import Uplink
from hamikit import names
from hamikit.objects import Pod
from hamikit.service import Lifecycle

log = structlog.get_logger()

DRAIN_S, DRAIN_LOOK_S = 5.0, 0.1


class Daemon:
    """One plugin for one resource: the cards', kubelet's and the API server's side of a node."""

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
        self.config, self._connect = config, connect
        self.loop = asyncio.get_running_loop()
        self.news, self.readers = Broadcast(self.loop), Readers(self.loop)
        self._afresh: asyncio.Future[None] = self.loop.create_future()
        self._settings_files = files or SettingsFiles(lambda: settings)
        self.metrics = Metrics(registry or CollectorRegistry())
        self.metrics.settings.set_function(lambda: float(self._settings_files.fault is None))
        self.checkpoint = CheckpointFile(config.checkpoint)
        self.stock = Stock(settings.family.count, self.checkpoint.read)
        self.cluster = Uplink()
        self.cards = CardsSide(
            config,
            settings,
            nvml,
            self.stock,
            self.metrics,
            on_news=self._tell,
            on_look=self._looked,
            end=self._end_for,
        )
        self.kubelet = KubeletSide(
            config.plugin_dir,
            self.stock.resource,
            self.stock.slots,
            self.metrics,
            self.news,
            options=options(prefers=settings.prefer_ids),
            numa=self.cards.standing.numa,
        )
        self.pods = Pods(self.news.announce, self._grant_changed)
        self.files = HostFiles(config.vgpu_dir)
        self.cdi = CdiFiles(config.cdi_dirs, config.cdi_dynamic_dir, self.readers.expect)
        self.access = CardAccess(
            lambda: self.cards.settings.wish,
            Runtime(config.containerd_config, config.cdi_dynamic_dir),
            self.cdi.node_specs,
            self._on_access,
            faults=self.cdi.faults,
            prefers_cdi=config.cdi_telling.preferred,
        )
        self.statics = Statics(
            config.plugin_dir,
            Broadcast(self.loop),
            self.cards.divisions,
            self.cdi,
            lambda: self.access.now.way,
        )
        self.lifecycle = Lifecycle()
        self.lifecycle.ready_when("kubelet", self.kubelet.missing)
        self.lifecycle.ready_when("cluster", self.cluster.missing)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        self.files.prepare()
        preparer = Preparer(self._parts())
        prestart = Prestart(
            preparer,
            self.news,
            self.cluster.fetch,
            self.readers.read,
            limit_s=self.config.prestart_s,
        )
        await self.kubelet.listen(Allocator(self.access, self.cluster.locked), prestart)
        work = (
            self.kubelet.register(),
            self.readers.run(),
            self._reach_cluster(preparer),
            self._look_after(preparer),
            self._settings_files.follow(self._adopt),
            self.statics.run(),
        )
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(each) for each in work]
        self.cards.start()
        stopped = asyncio.create_task(stop.wait())
        try:
            # None of the tasks ends by itself except by a fault, which ends the process.
            waiting: list[asyncio.Future[Any]] = [stopped, self._afresh, *tasks]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for ended in done - {stopped}:
                ended.result()
        finally:
            await self._end([stopped, *tasks])

    def _parts(self) -> Parts:
        return Parts(
            node=self.config.node_name,
            settings=lambda: self.cards.settings,
            stock=self.stock,
            read_checkpoint=self.checkpoint.read,
            pods=self.pods,
            files=self.files,
            cdi=self.cdi,
            access=self.access,
            report=self.cluster.warn,
            cdi_telling=self.config.cdi_telling,
            divisions=self.cards.divisions.of,
            capabilities=Capabilities(),
        )

    async def _reach_cluster(self, preparer: Preparer) -> None:
        await self.cluster.connect(lambda: self._connect(self), preparer.spell)
        await asyncio.Event().wait()

    async def _look_after(self, preparer: Preparer) -> None:
        """Now and then: sweep, and let kubelet know of slots that became free."""
        # Parsing takes most of a second on a node with eight cards; no container shall wait for it.
        await preparer.in_worker(self.access.look)
        memory = Memory(self.stock.resource, self.cluster.node_now)
        while True:
            await preparer.in_worker(lambda: self._tidy(preparer))
            self.news.announce()
            healthy = any(device.health for device in self.stock.devices or ())
            offers = healthy and self.kubelet.missing() is None
            await asyncio.to_thread(memory.check, self.cluster.seen(), offers=offers)
            await asyncio.sleep(self.config.scan_s)

    def _tidy(self, preparer: Preparer) -> None:
        tidy(preparer.admitted, self.pods, self.files, self.cdi, time.time)
        self.access.look()

    async def _end(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        self.lifecycle.stop()
        self.cards.stop()
        if not self.kubelet.replaced:
            # A successor that took over our socket is on duty already: nothing to pause for.
            await self.cluster.pause()
            await self._drain()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.kubelet.end()
        await self.cluster.stop()
        self.cards.close()
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

    def _looked(self) -> None:
        self.statics.look()

    def _on_access(self) -> None:
        self.stock.by_card = self.access.now.binding == names.BINDING_LOCK
        self._tell()

    def _tell(self) -> None:
        """Kubelet and the node's object are to say what there is now."""
        self.news.announce()
        self.cluster.news()

    def _adopt(self, settings: Settings) -> None:
        self.cards.adopt(settings)
        self.access.look()

    def _end_for(self, cause: StartAfresh) -> None:
        """End, from any thread, to be started afresh."""

        def end() -> None:
            if not self._afresh.done():
                self._afresh.set_exception(cause)

        self.loop.call_soon_threadsafe(end)

    def _grant_changed(self, pod: Pod, first: str) -> None:
        self.cluster.warn(
            pod,
            "GrantChanged",
            f"the grant in the pod's annotations was changed after the pod was bound; what counts "
            f"is what it was bound with: {first or 'nothing'}",
        )
