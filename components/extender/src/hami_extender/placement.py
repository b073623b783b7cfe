"""Where a whole pod could go on one node: container after container, as kubelet will run them."""

from dataclasses import dataclass, replace

from hami_extender.fit import Cards, Misfit, Wish, charge, fit_container
from hami_extender.inventory import NodeFacts
from hami_extender.score import node_score
from hami_extender.usage import NodeState, device_ids
from hamikit import names
from hamikit.codec import GrantedDevice, Slots
from hamikit.footprint import NOTHING
from hamikit.shape import ContainerRequest, PodShape, Role

UNREGISTERED = "node unregistered"
REGISTER_UNREADABLE = "NodeRegisterUnreadable"
BINDING_UNSUPPORTED = "NodeBindingUnsupported"
PAUSED = "NodePaused"
PLUGIN_NOT_READY = "NodePluginNotReady"
GRANT_UNREADABLE = "NodeGrantUnreadable"
SLOTS_EXHAUSTED = "NodeSlotsExhausted"


@dataclass(frozen=True, slots=True)
class Placement:
    """A pod's devices on a node, one slot a container, and how full the node is without it."""

    slots: Slots
    score: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pod cannot go to a node.

    `unresolvable`: removing pods would not help. `container` is the position of the container that
    did not fit, `cards` the reason of each card by position.
    """

    reason: str
    unresolvable: bool = False
    container: int | None = None
    cards: tuple[tuple[int, str], ...] = ()


Verdict = Placement | Refusal


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every node for one pod; equal questions have equal answers.

    `ids` is how many device ids kubelet will take for the pod.
    """

    shape: PodShape
    wish: Wish
    vendor: str
    ids: int

    @classmethod
    def of(cls, shape: PodShape, gpu_policy: str, vendor: str) -> "Question":
        """The question of a pod of this shape; `gpu_policy` counts where the pod has none."""
        slots = shape.slots
        counts = [slot.request.count if slot.request else 0 for slot in slots]
        ids = device_ids([slot.role for slot in slots], counts)
        return cls(shape, Wish.of(shape.selectors, gpu_policy), vendor, ids)


def place(state: NodeState | None, question: Question) -> Verdict:
    """Choose devices for a pod on a node, or say why there are none."""
    facts = state.facts if state else None
    if state is None or facts is None:
        return Refusal(UNREGISTERED, unresolvable=True)
    closed = _closed(state, facts)
    if closed is not None:
        return Refusal(closed, unresolvable=True)
    chosen = _place_containers(state, facts, question)
    if isinstance(chosen, Refusal):
        return chosen
    # Last, because what a card lacks says more than that kubelet has no slot left.
    if state.ids + question.ids > facts.allocatable:
        return Refusal(SLOTS_EXHAUSTED)
    return Placement(chosen, node_score(facts.cards, state.used))


def _closed(state: NodeState, facts: NodeFacts) -> str | None:
    """Why the node takes no pod at all."""
    if facts.fault:
        return REGISTER_UNREADABLE
    if not facts.cards:
        return UNREGISTERED
    if facts.binding != names.BINDING_LATE:
        return BINDING_UNSUPPORTED
    if facts.paused:
        return PAUSED
    # Without a plugin kubelet would fail the pod for good (HAMi defect 8.3b).
    if facts.allocatable <= 0:
        return PLUGIN_NOT_READY
    return GRANT_UNREADABLE if state.unreadable else None


def _place_containers(state: NodeState, facts: NodeFacts, question: Question) -> Slots | Refusal:
    used = [state.used.get(card.uuid, NOTHING) for card in facts.cards]
    running = Cards(facts.cards, used, facts.cordoned, question.vendor)
    slots: list[tuple[GrantedDevice, ...]] = []
    for number, slot in enumerate(question.shape.slots):
        if slot.request is None:
            slots.append(())
            continue
        found = fit_container(running, question.wish, slot.request)
        if isinstance(found, Misfit):
            # More cards than the node has: no pod's end will change that.
            unresolvable = not found.cards
            return Refusal(found.reason, unresolvable, number, found.cards)
        # An init container is gone before the next container starts; the others stay.
        if slot.role is not Role.INIT:
            running = replace(running, used=charge(running, slot.request, found))
        slots.append(_devices(facts, question.vendor, slot.request, found))
    return tuple(slots)


def _devices(
    facts: NodeFacts, vendor: str, request: ContainerRequest, positions: list[int]
) -> tuple[GrantedDevice, ...]:
    cards = [facts.cards[position] for position in positions]
    return tuple(
        GrantedDevice(card.uuid, vendor, request.memory_on(card.memory_mib), request.cores)
        for card in cards
    )
