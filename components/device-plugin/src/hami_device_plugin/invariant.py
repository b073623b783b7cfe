"""Whether cards can carry what was promised on them, whoever made the promises."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hami_device_plugin.grant import ContainerGrant, PodGrant
from hamikit.codec import RegisteredDevice
from hamikit.shape import Role


@dataclass(frozen=True, slots=True)
class Share:
    """An amount of a card: MiB of memory and percent of its compute."""

    memory_mib: int = 0
    cores: int = 0

    def __add__(self, other: "Share") -> "Share":
        """Both at the same time."""
        return Share(self.memory_mib + other.memory_mib, self.cores + other.cores)

    def or_more(self, other: "Share") -> "Share":
        """Whichever is more, in each respect: one after the other."""
        return Share(max(self.memory_mib, other.memory_mib), max(self.cores, other.cores))


NOTHING = Share()
Load = Mapping[str, Share]
"""Shares by card UUID."""


def peak(containers: Iterable[ContainerGrant]) -> Load:
    """The most that a pod's containers hold of each card at any moment.

    Init containers run one after the other, each beside the sidecars started before it; then all
    app containers run beside all sidecars.
    """
    sidecars: dict[str, Share] = defaultdict(Share)
    apps: dict[str, Share] = defaultdict(Share)
    most: dict[str, Share] = defaultdict(Share)
    for container in containers:
        for uuid, share in _load(container).items():
            if container.role is Role.INIT:
                most[uuid] = most[uuid].or_more(sidecars[uuid] + share)
            elif container.role is Role.SIDECAR:
                sidecars[uuid] += share
            else:
                apps[uuid] += share
    for uuid in {*sidecars, *apps}:
        most[uuid] = most[uuid].or_more(sidecars[uuid] + apps[uuid])
    return dict(most)


def _load(container: ContainerGrant) -> Load:
    load: dict[str, Share] = defaultdict(Share)
    for part in container.slices:
        load[part.uuid] += Share(part.memory_mib, part.cores)
    return load


@dataclass(frozen=True, slots=True)
class Excess:
    """A card that cannot carry one more pod."""

    uuid: str
    what: str
    held: int
    wanted: int
    total: int
    holders: tuple[str, ...]

    def __str__(self) -> str:
        """One sentence for the pod's event."""
        return (
            f"card {self.uuid}: {self.wanted} {self.what} more than fit beside the {self.held} of "
            f"{self.total} that {', '.join(self.holders) or 'nobody'} still hold"
        )


def excess(
    pod: PodGrant, others: Iterable[PodGrant], cards: Mapping[str, RegisteredDevice]
) -> Excess | None:
    """The first card on which this pod and the others exceed the card; None when all fit.

    `others` are the pods whose containers exist. Every card of the pod must be among `cards`.
    """
    loads = [(other.key, peak(other.containers)) for other in others if other.uid != pod.uid]
    for uuid, wanted in sorted(peak(pod.containers).items()):
        holders = tuple(key for key, load in loads if uuid in load)
        held = sum((load.get(uuid, NOTHING) for _, load in loads), NOTHING)
        card = cards[uuid]
        if held.memory_mib + wanted.memory_mib > card.devmem:
            return Excess(uuid, "MiB", held.memory_mib, wanted.memory_mib, card.devmem, holders)
        if held.cores + wanted.cores > card.devcore:
            return Excess(uuid, "percent", held.cores, wanted.cores, card.devcore, holders)
    return None
