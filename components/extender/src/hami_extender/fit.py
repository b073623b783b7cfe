"""Which cards of a node a container can have, in HAMi v2.10's order of tests."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hami_extender.inventory import Card
from hami_extender.score import MUTEX, card_score, sort_key
from hamikit.footprint import EXCLUSIVE_CORES, NOTHING, Share, share_of
from hamikit.shape import ContainerRequest, Selectors

MODE_MIG = "mig"

NOT_HEALTHY = "CardNotHealth"
CORDONED = "CardCordoned"
TYPE_MISMATCH = "CardTypeMismatch"
NUMA_NOT_FIT = "NumaNotFit"
UUID_MISMATCH = "CardUuidMismatch"
SLOTS_EXHAUSTED = "CardTimeSlicingExhausted"
EXCLUSIVE_CONFLICT = "ExclusiveDeviceAllocateConflict"
MEMORY_SHORT = "CardInsufficientMemory"
CORES_SHORT = "CardInsufficientCore"
CORES_EXHAUSTED = "CardComputeUnitsExhausted"
MIG_INFEASIBLE = "CardMigTopologyInfeasible"
TOO_FEW = "AllocatedCardsInsufficientRequest"
DEVICES_SHORT = "NodeInsufficientDevice"


def _entries(text: str) -> tuple[str, ...] | None:
    """A comma list; None when blank, which is no constraint. Empty entries match nothing."""
    if not text.strip():
        return None
    return tuple(filter(None, (entry.strip() for entry in text.split(","))))


@dataclass(frozen=True, slots=True)
class Wish:
    """A pod's wishes about cards, ready to test; None is no constraint."""

    use_type: tuple[str, ...] | None
    nouse_type: tuple[str, ...] | None
    use_uuid: tuple[str, ...] | None
    nouse_uuid: tuple[str, ...] | None
    mode: str
    numa_bind: bool
    policy: str
    mutex: bool
    """Whether only cards without any task will do."""

    @classmethod
    def of(cls, selectors: Selectors, policy: str) -> "Wish":
        """The wishes of a pod; `policy` orders the cards where the pod does not say."""
        chosen = selectors.gpu_policy or policy
        return cls(
            use_type=_entries(selectors.use_type.lower()),
            nouse_type=_entries(selectors.nouse_type.lower()),
            use_uuid=_entries(selectors.use_uuid),
            nouse_uuid=_entries(selectors.nouse_uuid),
            mode=selectors.vgpu_mode,
            numa_bind=selectors.numa_bind,
            policy=chosen,
            mutex=MUTEX in (word.strip() for word in chosen.split(",")),
        )

    def allows_type(self, card: Card) -> bool:
        """Types match by substring, in any case; a mode must be named by the wish."""
        kind = card.type.lower()
        if self.use_type is not None and not any(entry in kind for entry in self.use_type):
            return False
        if self.nouse_type is not None and any(entry in kind for entry in self.nouse_type):
            return False
        return not self.mode or card.mode in self.mode

    def allows_uuid(self, card: Card) -> bool:
        """UUIDs match exactly."""
        if self.use_uuid is not None and card.uuid not in self.use_uuid:
            return False
        return self.nouse_uuid is None or card.uuid not in self.nouse_uuid


@dataclass(frozen=True, slots=True)
class Cards:
    """A node's cards with what is used of each, at one moment; `vendor` is the family's word."""

    cards: Sequence[Card]
    used: Sequence[Share]
    cordoned: frozenset[str]
    vendor: str


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a container cannot be placed: the text, and the reason of each card by position."""

    reason: str
    cards: tuple[tuple[int, str], ...] = ()


def fit_container(node: Cards, wish: Wish, request: ContainerRequest) -> list[int] | Misfit:
    """Positions of the cards that the container gets, in order of choice."""
    if request.count > len(node.cards):
        return Misfit(DEVICES_SHORT)
    chosen: list[int] = []
    rejected: dict[int, str] = {}
    reasons: Counter[str] = Counter()
    numa = -1
    for position in reversed(_ordered(node, wish, request)):
        card = node.cards[position]
        reason = _condition(node, wish, card)
        if reason is None and wish.numa_bind and card.numa != numa:
            # A new NUMA group starts: what was gathered in the one before cannot be completed.
            if chosen:
                reasons[NUMA_NOT_FIT] += len(chosen)
                rejected.update(dict.fromkeys(chosen, NUMA_NOT_FIT))
            chosen, numa = [], card.numa
        reason = reason or _capacity(card, node.used[position], wish, request)
        if reason is not None:
            reasons[reason] += 1
            rejected[position] = reason
            continue
        chosen.append(position)
        if len(chosen) == request.count:
            return chosen
    if chosen:
        reasons[TOO_FEW] = len(chosen)
    return Misfit(_text(reasons, len(node.cards)), tuple(sorted(rejected.items())))


def _text(reasons: Counter[str], cards: int) -> str:
    return ", ".join(sorted(f"{number}/{cards} {reason}" for reason, number in reasons.items()))


def _ordered(node: Cards, wish: Wish, request: ContainerRequest) -> list[int]:
    key = sort_key(wish.policy, numa_bind=wish.numa_bind)

    def of(position: int) -> tuple[float, ...]:
        card, used = node.cards[position], node.used[position]
        # HAMi counts what is asked only where a card's type is the vendor's word itself.
        ask = NOTHING
        if card.type == node.vendor:
            ask = Share(1, request.memory_on(card.memory_mib), request.cores)
        return key(card, used, card_score(card, used, ask))

    return sorted(range(len(node.cards)), key=of)


def _condition(node: Cards, wish: Wish, card: Card) -> str | None:
    if not card.health:
        return NOT_HEALTHY
    if card.uuid in node.cordoned:
        return CORDONED
    return None if wish.allows_type(card) else TYPE_MISMATCH


def _capacity(card: Card, used: Share, wish: Wish, request: ContainerRequest) -> str | None:
    if not wish.allows_uuid(card):
        return UUID_MISMATCH
    if card.slots <= used.slots:
        return SLOTS_EXHAUSTED
    if wish.mutex and used.slots:
        return EXCLUSIVE_CONFLICT
    if card.memory_mib - used.memory_mib < request.memory_on(card.memory_mib):
        return MEMORY_SHORT
    return _compute(card, used, request.cores) or (
        # Instances are the MIG manager's; a whole MIG card is never handed out as a slice.
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


def charge(node: Cards, request: ContainerRequest, positions: Sequence[int]) -> list[Share]:
    """What is used once the container has these cards."""
    used = list(node.used)
    for position in positions:
        memory = request.memory_on(node.cards[position].memory_mib)
        used[position] += share_of(memory, request.cores)
    return used
