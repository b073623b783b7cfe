"""What NVML sees on the cards against what was granted: the differences, as values."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from hami_monitor.attribution import Attributed
from hami_monitor.processes import Process
from hamikit.region import UsageProcess
from hamikit.region_values import OVERHEAD

MIB: Final = 1 << 20
_NAMED_PIDS: Final = 5


class Kind(StrEnum):
    """In which way a card's use differs from what was granted."""

    OVER_USE = "over_use"
    NO_LIMITER = "no_limiter"
    NOT_GRANTED = "not_granted"
    UNKNOWN_POD = "unknown_pod"


@dataclass(frozen=True, slots=True)
class Holding:
    """What a container was granted, as far as the audit holds it to that.

    Attributes:
        limits: bytes by card UUID; None is no limit.
        limited: whether every process is to have the limiter.
        slots: the processes that the limiter counts, by PID in the container; their start time is
            0 where it is not recorded, their shares name the devices in the order of `limits`.
        strict: whether contexts and modules are among what is charged.
        overhead_bytes: what a process may hold beside what the limiter counts.
        note: what else a person should know, such as an account that cannot be read.
        static: whether kubelet gave it MIG instances that were made by hand, on cards that no grant
            names; the instance limits it.
    """

    limits: Mapping[str, int | None]
    limited: bool = True
    slots: Mapping[int, UsageProcess] | None = None
    strict: bool = False
    overhead_bytes: int = 0
    note: str = ""
    static: bool = False
    _charged: dict[tuple[int, str], int] = field(default_factory=dict, compare=False, repr=False)
    """What has been added up before; a holding lives for as long as nothing of it changes."""

    def slot_of(self, process: Process) -> UsageProcess | None:
        """The process's slot; None where the limiter does not count it."""
        slot = self.slots.get(process.ns_pid) if self.slots else None
        known = slot is not None and slot.start_time in (0, process.start_time)
        return slot if known else None

    def charged(self, process: Process, uuid: str) -> int:
        """What the limiter has charged to a process on a card that was granted."""
        slot = self.slot_of(process)
        if slot is None:
            return 0
        total = self._charged.get((slot.pid, uuid))
        if total is None:
            index = list(self.limits).index(uuid)
            total = sum(
                amount
                for (device, kind), amount in slot.shares.items()
                if device == index and (self.strict or kind not in OVERHEAD)
            )
            self._charged[slot.pid, uuid] = total
        return total


@dataclass(frozen=True, slots=True)
class Place:
    """What a finding is about; empty where the API server knows no such thing."""

    kind: Kind
    uuid: str
    pod_uid: str = ""
    namespace: str = ""
    pod: str = ""
    container: str = ""

    @property
    def subject(self) -> str:
        """The words for it."""
        if self.pod:
            return f"container {self.container or '?'} of pod {self.namespace}/{self.pod}"
        return f"a container of pod UID {self.pod_uid}" if self.pod_uid else "the host"


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference, now; `excess_bytes` is what is held beyond the grant."""

    place: Place
    processes: int
    text: str
    excess_bytes: int = 0


HoldingOf = Callable[[Attributed], Holding | None]


def audit(
    found: Iterable[Attributed], holding_of: HoldingOf, *, host_programs: Collection[str] = ()
) -> tuple[Finding, ...]:
    """Every difference between use and grant.

    Args:
        found: the processes on the cards.
        holding_of: what the container of a process holds; None where it was granted nothing.
        host_programs: names of the host's own programs that may use cards.
    """
    groups: dict[tuple[str, str, str], list[Attributed]] = defaultdict(list)
    for one in found:
        if one.in_pod or one.process.command not in host_programs:
            groups[one.in_pod, one.container, one.uuid].append(one)
    findings: list[Finding] = []
    for (in_pod, _, _), group in groups.items():
        if group[0].pod is None:
            findings.append(_plain(Kind.UNKNOWN_POD, group, "which no known pod explains", in_pod))
        else:
            findings += _of_container(group, holding_of(group[0]))
    return tuple(findings)


def _of_container(group: list[Attributed], holding: Holding | None) -> Iterable[Finding]:
    uuid = group[0].uuid
    if holding is None:
        yield _plain(Kind.NOT_GRANTED, group, "but was granted no card")
        return
    if uuid not in holding.limits and holding.static:
        return
    if uuid not in holding.limits:
        others = ", ".join(holding.limits)
        yield _plain(Kind.NOT_GRANTED, group, f"but was granted {others or 'none'}")
        return
    if holding.limited:
        free = [one for one in group if holding.slot_of(one.process) is None]
        if free:
            note = f" ({holding.note})" if holding.note else ""
            yield _plain(Kind.NO_LIMITER, free, f"without the limiter{note}")
    limit = holding.limits[uuid]
    if limit is not None:
        yield from _over_use(group, holding, limit)


def _over_use(group: list[Attributed], holding: Holding, limit: int) -> Iterable[Finding]:
    if sum(one.occupant.memory_bytes or 0 for one in group) <= limit:
        return  # whatever of it counts
    held = sum(counted(one, holding) for one in group)
    if held > limit:
        text = f"holds {held // MIB} MiB of {group[0].uuid}, granted {limit // MIB} MiB"
        yield Finding(_place(Kind.OVER_USE, group[0]), len(group), _text(group, text), held - limit)


def counted(one: Attributed, holding: Holding) -> int:
    """What of a process's memory counts against the grant, by NVML's figure.

    What the limiter has not charged may be contexts and modules, which do not count: but only up
    to `overhead_bytes`, so that a process that goes past the limiter gains no more than that, and
    one that writes a false account gains nothing beyond.
    """
    held, charged = one.occupant.memory_bytes or 0, holding.charged(one.process, one.uuid)
    return held - min(max(held - charged, 0), holding.overhead_bytes)


def _plain(kind: Kind, group: list[Attributed], what: str, in_pod: str = "") -> Finding:
    held = sum(one.occupant.memory_bytes or 0 for one in group)
    text = f"holds {held // MIB} MiB of {group[0].uuid} {what}"
    return Finding(_place(kind, group[0], in_pod), len(group), _text(group, text))


def _place(kind: Kind, one: Attributed, in_pod: str = "") -> Place:
    if one.pod is None:
        return Place(kind, one.uuid, in_pod)
    metadata = one.pod.metadata
    return Place(kind, one.uuid, metadata.uid, metadata.namespace, metadata.name, one.container)


def _text(group: list[Attributed], what: str) -> str:
    place = _place(Kind.OVER_USE, group[0], group[0].in_pod)
    named = [f"{one.process.command} (PID {one.process.pid})" for one in group[:_NAMED_PIDS]]
    more = f" and {len(group) - _NAMED_PIDS} more" if len(group) > _NAMED_PIDS else ""
    return f"{place.subject} {what}: {', '.join(named)}{more}"
