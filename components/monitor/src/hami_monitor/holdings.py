"""What the containers on the cards hold, read from their files, for the audit."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from hami_monitor.accounts import granted
from hami_monitor.attribution import Attributed
from hami_monitor.audit import MIB, Holding
from hami_monitor.containers import Reading, Unreadable, read_folder
from hamikit import names
from hamikit.hami_region import HamiRegion
from hamikit.objects import Pod
from hamikit.region import (
    Control,
    ControlFlag,
    Kind,
    Living,
    OverheadPolicy,
    Usage,
    UsageProcess,
)

NO_SLOT: Final = -1
"""Where a process stands in HAMi's region is nothing that anybody needs to know."""
_FOLDERS: Final = 1024
SLACK_BYTES: Final = 64 * MIB
"""The driver takes memory in larger pieces than programs ask for."""


@dataclass(slots=True)
class _Kept:
    """Of a container of ours: how its account is read, and the holding while it says the same."""

    living: Living = field(default_factory=Living)
    control: Control | None = None
    usage: Usage | None = None
    holding: Holding | None = None


class Holdings:
    """Reads each container's files at most once a look; `look` begins a new one."""

    def __init__(self, root: Path, *, overhead_bytes: int) -> None:
        self._root, self._overhead_bytes = root, overhead_bytes
        self._unreadable = Unreadable()  # counted where they are reported
        self._seen: dict[tuple[str, str], Holding | None] = {}
        self._kept: dict[tuple[str, str], _Kept] = {}

    def look(self) -> None:
        """Read everything anew; forget what nobody has asked for since the last look."""
        self._kept = {key: kept for key, kept in self._kept.items() if key in self._seen}
        self._seen.clear()

    def of(self, one: Attributed) -> Holding | None:
        """What the container of a process was granted; None where it was granted nothing."""
        key = (one.in_pod, one.container)
        if key not in self._seen:
            self._seen[key] = self._read(one, self._kept.setdefault(key, _Kept()))
        return self._seen[key]

    def _read(self, one: Attributed, kept: _Kept) -> Holding | None:
        if one.pod is None or not one.container:
            return None
        who = (_folder(self._root, one.in_pod, one.container), one.pod, one.container)
        reading = read_folder(*who, self._unreadable, read=kept.living.read)
        if reading is None or reading.control is None:
            return granted_holding(one.pod, one.container, reading, self._overhead_bytes)
        control, usage = reading.control, reading.usage
        # Both are the same objects for as long as the files say the same.
        if kept.holding is None or control is not kept.control or usage is not kept.usage:
            kept.control, kept.usage = control, usage
            kept.holding = own_holding(control, usage, self._overhead_bytes)
        return kept.holding


@lru_cache(_FOLDERS)
def _folder(root: Path, uid: str, container: str) -> Path:
    return root / f"{uid}_{container}"


def own_holding(control: Control, usage: Usage | None, overhead_bytes: int) -> Holding:
    """By the control file that the host wrote."""
    strict = control.overhead_policy is OverheadPolicy.STRICT
    unlimited = usage is not None and usage.unlimited_starts > 0
    # Where the operator lets variables loosen a limit, a container that did so is not held to it.
    excused = bool(control.flags & ControlFlag.ENV_MAY_LOOSEN) and unlimited
    limits = {
        device.uuid: None if excused else device.memory_limit_bytes or None
        for device in control.devices
    }
    return Holding(
        limits=limits,
        limited=not excused,
        slots=None if usage is None else {one.pid: one for one in usage.processes},
        strict=strict,
        overhead_bytes=SLACK_BYTES + (0 if strict else overhead_bytes),
        note="its account cannot be read" if usage is None else "",
    )


def granted_holding(
    pod: Pod, container: str, reading: Reading | None, overhead_bytes: int
) -> Holding | None:
    """By the pod's annotation, for containers whose limits stand in no file of ours.

    Without a region of HAMi's nobody knows whether there is a limiter: on a node that shares its
    cards by MIG there is none.
    """
    grants = granted(pod, container)
    if not grants:
        return Holding({}, limited=False, static=True) if _asks_static(pod, container) else None
    region = reading.region if reading is not None else None
    return Holding(
        limits={grant.uuid: grant.memory_mib * MIB or None for grant in grants},
        limited=region is not None,
        slots=None if region is None else _region_slots(region, [g.uuid for g in grants]),
        overhead_bytes=SLACK_BYTES + overhead_bytes,
    )


def _asks_static(pod: Pod, container: str) -> bool:
    """Whether a container asks for MIG instances by their profile's name."""
    return any(
        resource.startswith(names.RESOURCE_MIG_PREFIX)
        for one in pod.all_containers
        if one.name == container and one.resources is not None
        for resource in one.resources.limits or ()
    )


def _region_slots(region: HamiRegion, granted: Sequence[str]) -> dict[int, UsageProcess]:
    places = [granted.index(d.uuid) if d.uuid in granted else None for d in region.devices]
    slots: dict[int, UsageProcess] = {}
    for process in region.processes:
        shares = {
            (place, Kind.BUFFER): use.total_bytes - use.context_bytes
            for place, use in zip(places, process.uses, strict=True)
            if place is not None
        }
        slots[process.pid] = UsageProcess(NO_SLOT, process.pid, 0, 0, "", shares)
    return slots
