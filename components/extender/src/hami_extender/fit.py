"""Which cards of a node a container can have, in HAMi v2.10's order of tests."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hami_extender import choice
from hami_extender.cards import Cards, choices, loss
from hami_extender.inventory import MODE_MIG, Card
from hami_extender.score import BINPACK, card_score, sort_key
from hami_extender.wish import MODE_MISMATCH, TYPE_MISMATCH, Wish
from hamikit.devices import SELECT_GREEDY, SELECT_PAIRS
from hamikit.footprint import EXCLUSIVE_CORES, NOTHING, Share
from hamikit.shape import ContainerRequest

NOT_HEALTHY = "CardNotHealth"
CORDONED = "CardCordoned"
NUMA_NOT_FIT = "NumaNotFit"
UUID_MISMATCH = "CardUuidMismatch"
SLOTS_EXHAUSTED = "CardTimeSlicingExhausted"
EXCLUSIVE_CONFLICT = "ExclusiveDeviceAllocateConflict"
QUOTA_NOT_FIT = "ResourceQuotaNotFit"
MEMORY_SHORT = "CardInsufficientMemory"
CORES_SHORT = "CardInsufficientCore"
CORES_EXHAUSTED = "CardComputeUnitsExhausted"
MIG_INFEASIBLE = "CardMigTopologyInfeasible"
TOO_FEW = "AllocatedCardsInsufficientRequest"
DEVICES_SHORT = "NodeInsufficientDevice"

STATIC = frozenset({NOT_HEALTHY, CORDONED, TYPE_MISMATCH, MODE_MISMATCH, UUID_MISMATCH})
"""Reasons that no other pod's end would change."""

Allowed = Callable[[Sequence[int]], bool]
"""Whether the pod's namespace may have these cards on top of what the pod got so far."""


_Walk = tuple[list[list[int]], dict[int, str]]
"""Positions that would do, by groups of which one is taken; and why the others would not."""


def anything(_positions: Sequence[int]) -> bool:
    """No quota."""
    return True


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a container cannot be placed: the text, and the reason of each card by position."""

    reason: str
    cards: tuple[tuple[int, str], ...] = ()


def fit_container(
    node: Cards, wish: Wish, request: ContainerRequest, allowed: Allowed = anything
) -> list[int] | Misfit:
    """Positions of the cards that the container gets, in order of choice.

    A card that MIG divides can be several of them.
    """
    if request.count > len(node.cards) and not _divided(node, wish):
        return Misfit(DEVICES_SHORT)
    order = _ordered(node, wish, request)[::-1]
    walks: list[_Walk] = []
    for positions in _kinds(node, order, request.count):
        groups, rejected = _walk(node, wish, request, allowed, positions)
        chosen = _choose(node, wish, request.count, [g for g in groups if len(g) >= request.count])
        if chosen is not None and allowed(chosen):
            return chosen
        if chosen is not None:
            rejected.update(dict.fromkeys(groups[-1], QUOTA_NOT_FIT))
            groups[-1] = []
        walks.append((groups, rejected))
    return _misfit(walks, len(node.cards))


def _kinds(node: Cards, order: Sequence[int], count: int) -> Sequence[Sequence[int]]:
    """The cards among which a container's devices are chosen, those of one kind at a time.

    CUDA shows a program MIG instances or shares of cards, never both. The kind of the most
    preferred card comes first.
    """
    if count == 1:
        return [order]
    kinds: dict[bool, list[int]] = {}
    for position in order:
        kinds.setdefault(bool(node.cards[position].profiles), []).append(position)
    return list(kinds.values())


def _walk(
    node: Cards,
    wish: Wish,
    request: ContainerRequest,
    allowed: Allowed,
    positions: Sequence[int],
) -> _Walk:
    """The cards that would do, in order of preference, and why the others would not.

    With numa-bind there is a list for each NUMA node, in the order in which they were met.
    """
    everyone = _collects(node, wish)
    groups: list[list[int]] = [[]]
    rejected: dict[int, str] = {}
    numa = -1
    for position in positions:
        card = node.cards[position]
        reason = condition(card, wish, cordoned=card.uuid in node.cordoned)
        if reason is None and wish.numa_bind and card.numa != numa:
            # A new NUMA node starts: what was gathered in the one before stays by itself.
            numa = card.numa
            if groups[-1]:
                groups.append([])
        gathered = [] if everyone else groups[-1]
        reason = (
            reason
            or (None if wish.allows_uuid(card.uuid) else UUID_MISMATCH)
            or occupied(card, node.used[position], mutex=wish.mutex)
        )
        times = 0
        if reason is None:
            times, reason = _times(node, request, position, gathered, allowed)
        groups[-1] += [position] * times
        if reason is not None:
            rejected[position] = reason
        if not everyone and len(groups[-1]) == request.count:
            break
    return groups, rejected


def _times(
    node: Cards,
    request: ContainerRequest,
    position: int,
    gathered: Sequence[int],
    allowed: Allowed,
) -> tuple[int, str | None]:
    """How many of the container's devices a card can be, and what keeps it from being more."""
    card = node.cards[position]
    most = request.count - len(gathered) if card.profiles else 1
    for times in range(1, most + 1):
        if not allowed([*gathered, *[position] * times]):
            return times - 1, QUOTA_NOT_FIT
        if card.profiles:
            reason = _division(node, position, request, times)
        else:
            reason = capacity(card, node.used[position], request)
        if reason is not None:
            return times - 1, reason
    return most, None


def _divided(node: Cards, wish: Wish) -> bool:
    """Whether a pod may get more devices than there are cards."""
    return any(card.profiles and not wish.mismatch(card) for card in node.cards)


def _collects(node: Cards, wish: Wish) -> bool:
    """Whether all cards that would do are looked at before one is taken."""
    if wish.select == SELECT_GREEDY:
        return wish.topology
    return all(card.network is not None for card in node.cards) or wish.select == SELECT_PAIRS


def _choose(node: Cards, wish: Wish, count: int, groups: Sequence[list[int]]) -> list[int] | None:
    """The cards to take of those that would do; None where no group of them is enough."""
    if not groups:
        return None
    if not _collects(node, wish):
        return groups[0][:count]
    if wish.select == SELECT_PAIRS and count > 1:
        return choice.by_module(groups[0], count, node.cards)
    if wish.select != SELECT_GREEDY:
        return choice.by_network(groups[0], count, node.cards) if count > 1 else groups[0][:1]
    score = choice.pair_score(node.cards, node.pair_scores)
    if count == 1:
        return [choice.loneliest(groups[0], score)]
    # Every complete NUMA node counts, the best connected one wins (HAMi defect 8.8).
    found = [choice.best_connected(group, count, score) for group in groups]
    return max(found, key=lambda one: one[0])[1]


def _misfit(walks: Sequence[_Walk], cards: int) -> Misfit:
    """The text that counts every card's reason, and those that were gathered in vain."""
    rejected: dict[int, str] = {}
    for groups, refused in walks:
        rejected.update(refused)
        for group in groups[:-1]:
            rejected.update(dict.fromkeys(group, NUMA_NOT_FIT))
    reasons = Counter(rejected.values())
    if left := sum(len(groups[-1]) for groups, _ in walks):
        reasons[TOO_FEW] = left
    return Misfit(reason_text(reasons, cards), tuple(sorted(rejected.items())))


def reason_text(reasons: Mapping[str, int], cards: int) -> str:
    """`k/n Reason`, sorted as strings."""
    return ", ".join(sorted(f"{number}/{cards} {reason}" for reason, number in reasons.items()))


def _ordered(node: Cards, wish: Wish, request: ContainerRequest) -> list[int]:
    key = sort_key(wish.policy, numa_bind=wish.numa_bind)

    def of(position: int) -> tuple[float, ...]:
        card, used = node.cards[position], node.used[position]
        # HAMi counts what is asked only where a card's type is the vendor's word itself.
        ask = NOTHING
        if card.type == node.vendor:
            ask = Share(1, request.memory_on(card.memory_mib), request.cores)
        return key(card, used, card_score(card, used, ask, wish.weights))

    order = sorted(range(len(node.cards)), key=of)
    if wish.policy == BINPACK and not wish.numa_bind and len(node.partitions) > 1:
        return _tightest_last(node, request, order)
    return order


def _tightest_last(node: Cards, request: ContainerRequest, order: Sequence[int]) -> list[int]:
    """The order with divided cards changed among themselves: who loses least is taken first.

    How full a card is says little of an instance: where the free slices are decides what is left.
    """
    losses = {position: loss(node, position, request) for position in node.partitions}
    divided = [position for position in order if position in losses]
    able = [position for position in divided if losses[position] is not None]
    # Stable, and what sorts last is taken first: equal ones stay in the policy's order.
    able.sort(key=lambda position: [-part for part in losses[position] or ()])
    filled = iter([position for position in divided if losses[position] is None] + able)
    return [next(filled) if position in losses else position for position in order]


def condition(card: Card, wish: Wish, *, cordoned: bool) -> str | None:
    """What keeps a card out whatever is used of it, its UUID aside."""
    if not card.health:
        return NOT_HEALTHY
    return CORDONED if cordoned else wish.mismatch(card)


def occupied(card: Card, used: Share, *, mutex: bool) -> str | None:
    """Whether a card has no place for one more task."""
    if card.slots <= used.slots:
        return SLOTS_EXHAUSTED
    return EXCLUSIVE_CONFLICT if mutex and used.slots else None


def capacity(card: Card, used: Share, request: ContainerRequest) -> str | None:
    """What a card has too little of."""
    if card.memory_mib - used.memory_mib < request.memory_on(card.memory_mib):
        return MEMORY_SHORT
    return _compute(card, used, request.cores) or (
        # It does not say what can be made of it, and is never handed out as a slice.
        MIG_INFEASIBLE if card.mode == MODE_MIG else None
    )


def _compute(card: Card, used: Share, cores: int) -> str | None:
    # 100 asks for a card of its own, whatever the card's core scaling (HAMi defect 8.23).
    if cores >= EXCLUSIVE_CORES and not used.slots:
        return None
    if card.cores - used.cores < cores:
        return CORES_SHORT
    if cores >= EXCLUSIVE_CORES:
        return EXCLUSIVE_CONFLICT
    if cores == 0 and card.cores and used.cores >= card.cores:
        return CORES_EXHAUSTED
    return EXCLUSIVE_CONFLICT if used.exclusive else None


def _division(node: Cards, position: int, request: ContainerRequest, times: int) -> str | None:
    """What a card that MIG divides has too little of for so many instances."""
    card, used = node.cards[position], node.used[position]
    if position not in node.partitions:
        return NOT_HEALTHY
    if card.memory_mib - used.memory_mib < request.memory_on(card.memory_mib):
        return MEMORY_SHORT
    # Its compute is cut with its memory: only a wish for the whole card counts.
    if used.exclusive or (request.cores >= EXCLUSIVE_CORES and used.slots):
        return EXCLUSIVE_CONFLICT
    return None if len(choices(node, position, request, times)) == times else MIG_INFEASIBLE
