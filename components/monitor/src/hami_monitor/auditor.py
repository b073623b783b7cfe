"""The audit at work: looks at each answer of NVML, tells people, and asks for evictions."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Protocol

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from hami_monitor.attribution import NO_SIGHT, Attributed, Sight, attribute, sight
from hami_monitor.audit import HoldingOf, Kind, audit
from hami_monitor.containers import pods_by_uid
from hami_monitor.gauges import Families
from hami_monitor.holdings import Holdings
from hami_monitor.host import HostState
from hami_monitor.processes import Processes
from hami_monitor.tracker import News, Tracker
from hamikit.events import Events
from hamikit.objects import Pod

log = structlog.get_logger()

REASONS = {
    Kind.OVER_USE: "GpuMemoryOverUse",
    Kind.NO_LIMITER: "GpuWithoutLimiter",
    Kind.NOT_GRANTED: "GpuNotGranted",
}
_WHO = ("node", "kind", "namespace", "pod", "container", "device_uuid")


class Listener(Protocol):
    """Who hears of findings."""

    def hear(self, news: News, pods: Mapping[str, Pod]) -> None:
        """What a look has confirmed, with the node's pods by UID; must not wait."""


class Teller:
    """Tells findings as events on their pods."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def hear(self, news: News, pods: Mapping[str, Pod]) -> None:
        """Events for what is to be told; what belongs to no pod stands in the log alone."""
        for finding in news.told:
            pod = pods.get(finding.place.pod_uid)
            if pod is not None:
                # The tracker says when it is time to tell something again.
                self._events.warn(pod, REASONS[finding.place.kind], finding.text, again=True)


class Auditor:
    """Compares, at each answer of NVML, what processes hold with what was granted.

    `watch` runs in NVML's thread; the last result can be asked for from any. `told` hears of every
    process that was found.
    """

    def __init__(
        self,
        pods: Callable[[], Iterable[Pod]],
        processes: Processes,
        holdings: Holdings,
        *,
        listeners: Collection[Listener] = (),
        host_programs: Collection[str] = (),
        told: Callable[[Iterable[Attributed], HoldingOf], None] = lambda _found, _of: None,
        fresh: Callable[[], bool] = lambda: True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pods, self._processes, self._holdings = pods, processes, holdings
        self._listeners, self._host_programs = listeners, host_programs
        self._told, self._fresh, self._now = told, fresh, now
        self._tracker = Tracker()
        self._lock = threading.Lock()
        self._news, self._sight = News(), NO_SIGHT

    def watch(self, state: HostState) -> float:
        """Look at an answer; returns after how many seconds the next is wanted."""
        pods = pods_by_uid(self._pods())
        found = self._attribute(state, pods)
        self._holdings.look()
        self._told(found, self._holdings.of)
        findings = audit(found, self._holdings.of, host_programs=self._host_programs)
        if not self._fresh():
            # Pods that came since the API server was last heard of cannot be known.
            findings = tuple(finding for finding in findings if finding.place.container)
        news = self._tracker.look(findings, self._now())
        with self._lock:
            self._news, self._sight = news, sight(state.cards, found)
        for finding in news.told:
            log.warning("audit", kind=finding.place.kind.value, text=finding.text)
        for listener in self._listeners:
            listener.hear(news, pods)
        return news.soonest_s

    def _attribute(self, state: HostState, pods: dict[str, Pod]) -> tuple[Attributed, ...]:
        pids = (o.pid for reading in state.cards for o in reading.occupants or ())
        return attribute(state.cards, self._processes.look_up(pids), pods)

    def sight(self) -> Sight:
        """What NVML said last, by container."""
        with self._lock:
            return self._sight

    def news(self) -> News:
        """The findings of the last look."""
        with self._lock:
            return self._news

    def totals(self) -> dict[Kind, int]:
        """Findings confirmed so far, by kind."""
        return dict(self._tracker.totals)


class AuditCollector(Collector):
    """The audit's findings as metrics; absent while NVML is silent."""

    def __init__(self, auditor: Auditor, node: str, up: Callable[[], bool]) -> None:
        self._auditor, self._node, self._up = auditor, node, up

    def collect(self) -> Iterator[Metric]:
        """What stands now, and how much there has been."""
        current = Families(
            _WHO,
            ("hami_audit_finding_processes", "Processes that use a card in a way not granted."),
            ("hami_audit_excess_bytes", "Memory held beyond the grant."),
        )
        sums: dict[tuple[str, ...], tuple[int, int]] = {}
        for finding in self._auditor.news().standing if self._up() else ():
            place = finding.place
            who: tuple[str, ...] = (place.kind.value, place.namespace, place.pod)
            who += (place.container, place.uuid)
            # Unknown pods have no names, so several of them share a series.
            processes, excess = sums.get(who, (0, 0))
            sums[who] = (processes + finding.processes, excess + finding.excess_bytes)
        for who, (processes, excess) in sums.items():
            current.add("hami_audit_finding_processes", (self._node, *who), processes)
            current.add("hami_audit_excess_bytes", (self._node, *who), excess or None)
        yield from current
        name = "hami_audit_findings_total"
        totals = Families(("node", "kind"), (name, "Findings so far."))
        for kind, count in self._auditor.totals().items():
            totals.add(name, (self._node, kind.value), count)
        yield from totals
