"""Where a whole pod could go on one node: container after container, as kubelet will run them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hami_extender.cards import Cards, charge, devices_of
from hami_extender.choice import network_share
from hami_extender.fit import Allowed, Misfit, anything, fit_container
from hami_extender.inventory import NodeFacts, Offer
from hami_extender.partition import Partition
from hami_extender.question import PLENTY, Headroom, Part, Question
from hami_extender.score import node_score
from hami_extender.usage import NodeState, footprint
from hamikit import names
from hamikit.codec import GrantedDevice, Slots
from hamikit.devices import SCORE_NETWORK
from hamikit.footprint import NOTHING
from hamikit.shape import ContainerRequest, Role

UNREGISTERED = "node unregistered"
REGISTER_UNREADABLE = "NodeRegisterUnreadable"
BINDING_UNSUPPORTED = "NodeBindingUnsupported"
PAUSED = "NodePaused"
PLUGIN_NOT_READY = "NodePluginNotReady"
GRANT_UNREADABLE = "NodeGrantUnreadable"
SLOTS_EXHAUSTED = "NodeSlotsExhausted"

BINDINGS = frozenset({names.BINDING_LATE, names.BINDING_LOCK})
"""The protocols by which we can bind."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A pod's devices on a node, one slot a container, and how full the node is without it."""

    slots: Slots
    score: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pod cannot go to a node.

    `unresolvable`: removing pods would not help. `container` is the position of the container that
    did not fit, `cards` the reason of each card by its position in the offer of family `vendor`.
    """

    reason: str
    unresolvable: bool = False
    container: int | None = None
    cards: tuple[tuple[int, str], ...] = ()
    vendor: str = ""


Verdict = Placement | Refusal


def place(state: NodeState | None, question: Question) -> Verdict:
    """Choose devices for a pod on a node, or say why there are none."""
    facts = state.facts if state else None
    if state is None or facts is None:
        return Refusal(UNREGISTERED, unresolvable=True)
    slots: list[Slots] = []
    score = node_score(facts.cards, state.used)
    for part in question.parts:
        offer = facts.offer(part.vendor)
        if offer is None:
            return Refusal(UNREGISTERED, unresolvable=True)
        closed = why_closed(state, facts, offer)
        if closed is not None:
            return Refusal(closed, unresolvable=True)
        found = _place_containers(state, facts, offer, part)
        if isinstance(found, Refusal):
            return found
        # Last, because what a card lacks says more than that kubelet has no slot left.
        if short_of_ids(state, offer, part):
            return Refusal(SLOTS_EXHAUSTED)
        slots.append(found)
        score += _family_score(offer, part, found)
    return Placement(merged(slots), score)


def merged(parts: Sequence[Slots]) -> Slots:
    """The slots of several families as one: what each container gets of all of them."""
    if len(parts) == 1:
        return parts[0]
    return tuple(
        tuple(device for slot in slots for device in slot) for slots in zip(*parts, strict=True)
    )


def short_of_ids(state: NodeState, offer: Offer, part: Part) -> bool:
    """Whether kubelet has too few device ids left for the pod."""
    return state.ids.get(part.vendor, 0) + part.ids > offer.allocatable


def why_closed(state: NodeState, facts: NodeFacts, offer: Offer) -> str | None:
    """Why the node takes no pod of this family at all."""
    if offer.fault:
        return REGISTER_UNREADABLE
    if not offer.cards:
        return UNREGISTERED
    if offer.binding not in BINDINGS:
        return BINDING_UNSUPPORTED
    if facts.paused:
        return PAUSED
    # Without a plugin kubelet would fail the pod for good (HAMi defect 8.3b).
    if offer.allocatable <= 0:
        return PLUGIN_NOT_READY
    return GRANT_UNREADABLE if state.unreadable else None


def _place_containers(
    state: NodeState, facts: NodeFacts, offer: Offer, part: Part
) -> Slots | Refusal:
    running = cards_of(state, facts, offer)
    slots: list[tuple[GrantedDevice, ...]] = []
    for number, slot in enumerate(part.shape.slots):
        if slot.request is None:
            slots.append(())
            continue
        allowed = _allowed(part, slots, running, slot.request)
        found = fit_container(running, part.wish, slot.request, allowed)
        if isinstance(found, Misfit):
            # More cards than the node has: no pod's end will change that.
            unresolvable = not found.cards
            return Refusal(found.reason, unresolvable, number, found.cards, part.vendor)
        slots.append(devices_of(running, slot.request, found))
        if number < len(part.shape.slots) - 1:
            # An init container is gone before the next container starts; the others stay.
            running = charge(running, slot.request, found, passing=slot.role is Role.INIT)
    return tuple(slots)


def cards_of(state: NodeState, facts: NodeFacts, offer: Offer) -> Cards:
    """The cards of a family with what is used of each."""
    used = [state.used.get(card.uuid, NOTHING) for card in offer.cards]
    divided = partitions(state, offer) if any(card.profiles for card in offer.cards) else {}
    return Cards(offer.cards, used, facts.cordoned, offer.vendor, offer.pair_scores, divided)


def partitions(state: NodeState, offer: Offer) -> dict[int, Partition]:
    """The cards that MIG divides; without those that hold something without an instance."""
    granted = [
        device for holding in state.holders.values() for slot in holding.slots for device in slot
    ]
    found: dict[int, Partition] = {}
    for position, card in enumerate(offer.cards):
        own = [device.instance for device in granted if device.uuid == card.uuid]
        known = [instance.placement for instance in own if instance is not None]
        if card.profiles and len(known) == len(own):
            blocked = (entry.placement for entry in card.blocked)
            found[position] = Partition(card.profiles, (*known, *blocked))
    return found


def _allowed(
    part: Part, slots: Iterable[tuple[GrantedDevice, ...]], node: Cards, request: ContainerRequest
) -> Allowed:
    """The namespace's quota, for a container that comes after these slots."""
    if part.headroom == PLENTY:
        return anything
    placed = tuple(slots)
    roles = [slot.role for slot in part.shape.slots[: len(placed) + 1]]

    def allowed(positions: Sequence[int]) -> bool:
        return within(part.headroom, roles, (*placed, devices_of(node, request, positions)))

    return allowed


def within(headroom: Headroom, roles: Sequence[Role], slots: Slots) -> bool:
    """Whether what these containers take together is left of a quota."""
    taken = footprint(roles, slots).values()
    memory, cores = headroom.memory_mib, headroom.cores
    if memory is not None and sum(share.memory_mib for share in taken) > memory:
        return False
    return cores is None or sum(share.cores for share in taken) <= cores


def _family_score(offer: Offer, part: Part, slots: Slots) -> float:
    """What the family itself adds to a node's score."""
    if part.family.score != SCORE_NETWORK:
        return 0.0
    by_uuid = {card.uuid: card for card in offer.cards}
    return sum(network_share([by_uuid[d.uuid] for d in slot]) for slot in slots)
