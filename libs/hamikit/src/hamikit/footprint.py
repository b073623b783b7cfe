"""What a pod takes of each card at its worst moment, by kubelet's arithmetic."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from hamikit.shape import Role

EXCLUSIVE_CORES = 100
"""A task with this many percent has its card to itself, whatever the card's core scaling."""


@dataclass(frozen=True, slots=True)
class Share:
    """A part of one card: tasks, MiB, percent of its compute, and tasks that want it alone."""

    slots: int = 0
    memory_mib: int = 0
    cores: int = 0
    exclusive: int = 0

    def __add__(self, other: "Share") -> "Share":
        return Share(
            self.slots + other.slots,
            self.memory_mib + other.memory_mib,
            self.cores + other.cores,
            self.exclusive + other.exclusive,
        )

    def __sub__(self, other: "Share") -> "Share":
        return Share(
            self.slots - other.slots,
            self.memory_mib - other.memory_mib,
            self.cores - other.cores,
            self.exclusive - other.exclusive,
        )

    def peak(self, other: "Share") -> "Share":
        """The larger of each part: one after the other."""
        return Share(
            max(self.slots, other.slots),
            max(self.memory_mib, other.memory_mib),
            max(self.cores, other.cores),
            max(self.exclusive, other.exclusive),
        )


NOTHING = Share()

Footprint = Mapping[str, Share]
"""Card UUID -> share."""


@lru_cache(maxsize=16384)
def share_of(memory_mib: int, cores: int) -> Share:
    """What one container takes of one card."""
    return Share(1, memory_mib, cores, int(cores >= EXCLUSIVE_CORES))


def footprint(containers: Iterable[tuple[Role, Footprint]]) -> dict[str, Share]:
    """What a pod's containers, in the order of their start, take of each card at most.

    Per card: the larger of (any init container plus the sidecars started before it) and (all app
    containers plus all sidecars).
    Source: kubernetes pkg/api/v1/resource helpers, KEP-753 (sidecar containers).
    """
    sidecars: dict[str, Share] = {}
    apps: dict[str, Share] = {}
    most: dict[str, Share] = {}
    for role, own in containers:
        if role is Role.APP:
            apps = _plus(apps, own)
        elif role is Role.SIDECAR:
            sidecars = _plus(sidecars, own)
        else:
            most = _peak(most, _plus(sidecars, own))
    return _peak(most, _plus(sidecars, apps))


def _plus(left: Footprint, right: Footprint) -> dict[str, Share]:
    total = dict(left)
    for uuid, share in right.items():
        total[uuid] = total.get(uuid, NOTHING) + share
    return total


def _peak(left: Footprint, right: Footprint) -> dict[str, Share]:
    peak = dict(left)
    for uuid, share in right.items():
        peak[uuid] = peak.get(uuid, NOTHING).peak(share)
    return peak
