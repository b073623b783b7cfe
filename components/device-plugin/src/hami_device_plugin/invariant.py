"""Whether cards can carry what was promised on them, whoever made the promises."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hami_device_plugin.grant import ContainerGrant, PodGrant
from hamikit import names
from hamikit.codec import RegisteredDevice
from hamikit.footprint import NOTHING, Footprint, Share, footprint, share_of


def peak(containers: Iterable[ContainerGrant]) -> dict[str, Share]:
    """The most that a pod's containers hold of each card at any moment."""
    return footprint((container.role, _load(container)) for container in containers)


def _load(container: ContainerGrant) -> Footprint:
    load: dict[str, Share] = defaultdict(Share)
    for part in container.slices:
        load[part.uuid] += share_of(part.memory_mib, part.cores)
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
        if self.wanted > self.total:
            return (
                f"card {self.uuid} has {self.total} {self.what} and can never give {self.wanted}; "
                "delete the pod, so that it is scheduled anew"
            )
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
    mine = pod.uuids
    loads = [
        (other.key, peak(other.containers))
        for other in others
        if other.uid != pod.uid and not mine.isdisjoint(other.uuids)
    ]
    for uuid, wanted in sorted(peak(pod.containers).items()):
        holders = tuple(key for key, load in loads if uuid in load)
        held = sum((load.get(uuid, NOTHING) for _, load in loads), NOTHING)
        both, card = held + wanted, cards[uuid]
        limits = (
            ("tasks", held.slots, wanted.slots, card.count),
            ("MiB", held.memory_mib, wanted.memory_mib, card.devmem),
        )
        for what, has, wants, total in limits:
            if has + wants > total:
                return Excess(uuid, what, has, wants, total, holders)
        if card.mode == names.MODE_MIG:  # seven sevenths, each rounded up, are more than 100
            continue
        # Who has a card alone may have more percent than core scaling below 1 leaves of it.
        too_much = bool(held.slots) if both.exclusive else both.cores > card.devcore
        if too_much:
            return Excess(uuid, "percent", held.cores, wanted.cores, card.devcore, holders)
    return None
