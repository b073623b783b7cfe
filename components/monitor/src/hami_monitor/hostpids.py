"""Tells the limiter the host PIDs of its processes, by which NVML may name them."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import structlog

from hami_monitor.attribution import Attributed
from hami_monitor.audit import HoldingOf
from hami_monitor.holdings import NO_SLOT
from hamikit import names
from hamikit.region import HostPid, RegionError, note_host_pids

log = structlog.get_logger()


class HostPids:
    """Writes into usage files what they do not say yet; a file that cannot be written stays."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def tell(self, found: Iterable[Attributed], holding_of: HoldingOf) -> None:
        """Each process on the cards, in the slot that its container's limiter has for it.

        A tenant writes its slots itself, so a process is only ever told of in its own container's
        file: what cgroup it is in says the kernel.
        """
        news: dict[tuple[str, str], set[HostPid]] = defaultdict(set)
        for one in found:
            holding = holding_of(one) if one.pod is not None and one.container else None
            slot = holding.slot_of(one.process) if holding is not None else None
            if slot is None or slot.slot == NO_SLOT or slot.host_pid == one.process.pid:
                continue
            host = HostPid(slot.slot, one.process.pid, one.process.start_time)
            news[one.in_pod, one.container].add(host)
        for (uid, container), pids in news.items():
            path = self._root / f"{uid}_{container}" / names.USAGE_NAME
            try:
                note_host_pids(path, pids)
            except (OSError, RegionError) as error:
                log.debug("host PIDs cannot be written", path=str(path), error=str(error))
