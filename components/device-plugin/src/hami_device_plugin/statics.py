"""Offers kubelet the MIG instances that were made by hand: a plugin for each profile."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from hami_device_plugin.broadcast import Broadcast
from hami_device_plugin.carving import Capabilities
from hami_device_plugin.cdi import CdiError
from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.kubelet_side import KubeletSide
from hami_device_plugin.made import Made
from hami_device_plugin.metrics import Metrics
from hami_device_plugin.mig import Divisions
from hami_device_plugin.server import options
from hami_device_plugin.static import InstanceAllocator, document, offered
from hamikit import names

log = structlog.get_logger()


class _NothingToPrepare:
    """kubelet is told that it need not ask."""

    async def run(self, _ids: list[str]) -> None:
        """Nothing."""


class Statics:
    """A plugin for each profile that there are instances of, from its first one on.

    The runtime is told of the instances before kubelet hears of them. `way` is how containers of
    the node come to their cards.
    """

    def __init__(
        self,
        plugin_dir: Path,
        news: Broadcast,
        divisions: Divisions,
        cdi: CdiFiles,
        way: Callable[[], str],
    ) -> None:
        self._plugin_dir, self._news, self._way = plugin_dir, news, way
        self._divisions, self._cdi = divisions, cdi
        self._allocator = InstanceAllocator(way)
        self._now: Mapping[str, tuple[Made, ...]] = {}
        self._fault = ""

    def look(self) -> None:
        """Take account of what there is; from the cards' thread."""
        found = offered(one for some in self._divisions.made.values() for one in some)
        try:
            self._publish([one for some in found.values() for one in some])
        except (OSError, CdiError) as error:
            if str(error) != self._fault:
                log.warning("MIG instances cannot be offered", error=str(error))
            self._fault = str(error)
            return
        self._fault = ""
        if found != self._now:
            self._now = found
            log.info("instances offered", **{name: len(some) for name, some in found.items()})
            self._news.announce()

    def _publish(self, made: Sequence[Made]) -> None:
        """Tell the runtime, where it is CDI that brings the instances."""
        if self._way() != names.CARDS_BY_CDI:
            made = ()
        specs = self._cdi.node_specs() if made else ()
        self._cdi.publish(document(made, specs, self._divisions.of, Capabilities()))

    async def run(self) -> None:
        """Serve until cancelled."""
        served: set[str] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                waiter = self._news.waiter()
                for resource in sorted(self._now.keys() - served):
                    served.add(resource)
                    group.create_task(self._serve(resource))
                await waiter.wait()

    def _slots(self, resource: str) -> dict[str, bool]:
        return {one.uuid: True for one in self._now.get(resource, ())}

    async def _serve(self, resource: str) -> None:
        """One profile; what it counts is in no scrape, which is about slots of cards."""
        side = KubeletSide(
            self._plugin_dir,
            resource,
            lambda: self._slots(resource),
            Metrics(CollectorRegistry()),
            self._news,
            options=options(prefers=False, prepares=False),
        )
        await side.listen(self._allocator, _NothingToPrepare())
        try:
            await side.register()
        finally:
            await side.end()
