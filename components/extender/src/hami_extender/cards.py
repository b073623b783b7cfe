"""A node's cards of one family at one moment, and what a container takes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hami_extender.inventory import Card, PairScores
from hami_extender.partition import Choice, Partition
from hamikit.codec import GrantedDevice
from hamikit.footprint import Share, share_of
from hamikit.instances import MigInstance
from hamikit.shape import ContainerRequest


@dataclass(frozen=True, slots=True)
class Cards:
    """A node's cards of one family with what is used of each, at one moment.

    `partitions` has those that MIG divides, by position; one that is not there although its card
    has profiles holds what nobody knows.
    """

    cards: Sequence[Card]
    used: Sequence[Share]
    cordoned: frozenset[str]
    vendor: str
    pair_scores: PairScores = field(default_factory=dict)
    partitions: Mapping[int, Partition] = field(default_factory=dict)


def choices(node: Cards, position: int, request: ContainerRequest, times: int) -> list[Choice]:
    """The instances of a card that a request gets, as far as there are so many."""
    partition = node.partitions.get(position)
    if partition is None:
        return []
    return partition.choices(_memory(node.cards[position], request), times)


def loss(node: Cards, position: int, request: ContainerRequest) -> tuple[int, ...] | None:
    """What one instance for a request costs a card that MIG divides; None: it has none."""
    partition = node.partitions.get(position)
    if partition is None:
        return None
    return partition.loss(_memory(node.cards[position], request))


def _memory(card: Card, request: ContainerRequest) -> int:
    """MiB that an instance has to have at least."""
    memory = request.memory_on(card.memory_mib)
    if memory != card.memory_mib:
        return memory
    # The profile of the whole card has a little less than the card.
    return min(memory, max(profile.memory_mib for profile in card.profiles))


def devices_of(
    node: Cards, request: ContainerRequest, positions: Sequence[int]
) -> tuple[GrantedDevice, ...]:
    """What a container is granted with these cards."""
    made = {
        position: iter(choices(node, position, request, positions.count(position)))
        for position in positions
        if node.cards[position].profiles
    }
    return tuple(
        _device(node, request, position, next(made.get(position, iter(())), None))
        for position in positions
    )


def _device(
    node: Cards, request: ContainerRequest, position: int, choice: Choice | None
) -> GrantedDevice:
    card = node.cards[position]
    if choice is None:
        memory = request.memory_on(card.memory_mib)
        return GrantedDevice(card.uuid, node.vendor, memory, request.cores)
    profile, place = choice
    instance = MigInstance(profile.name, place)
    return GrantedDevice(card.uuid, node.vendor, profile.memory_mib, profile.core, instance)


def charge(
    node: Cards, request: ContainerRequest, positions: Sequence[int], *, passing: bool
) -> Cards:
    """The node once the container has these cards; `passing`: an init container, which ends."""
    partitions = {
        position: partition.after(
            choices(node, position, request, positions.count(position)), passing=passing
        )
        for position, partition in node.partitions.items()
    }
    used = list(node.used)
    if not passing:
        for position, device in zip(positions, devices_of(node, request, positions), strict=True):
            used[position] += share_of(device.memory_mib, device.cores)
    return replace(node, used=used, partitions=partitions)
