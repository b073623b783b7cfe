"""What one node says to one pod, card by card: what was asked, what is free, which rule said no."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hami_extender import remedies
from hami_extender.inventory import Card
from hami_extender.partition import Partition
from hami_extender.placement import Placement, Refusal, Verdict, partitions, place
from hami_extender.question import Part, Question
from hami_extender.usage import NodeState
from hamikit.footprint import NOTHING, Share, share_of
from hamikit.mig import BlockedPlacement
from hamikit.shape import ContainerRequest, PodShape, Role


@dataclass(frozen=True, slots=True)
class CardAnswer:
    """A card before the container in question; `reason` is empty where the card would do.

    `blocked` tells where the node's mig-manager can make no instance, and why.
    """

    uuid: str
    index: int
    type: str
    asked_memory_mib: int
    free_memory_mib: int
    memory_mib: int
    asked_cores: int
    free_cores: int
    cores: int
    free_slots: int
    slots: int
    reason: str
    remedy: str
    blocked: tuple[str, ...] = ()
    held_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """A node's verdict; `reason` is what kube-scheduler is told, `detail` the node's own words.

    `container` is the one that did not fit and `asked` its request; `cards` are in node order.
    """

    node: str
    fits: bool
    reason: str = ""
    detail: str = ""
    remedy: str = ""
    unresolvable: bool = False
    container: str = ""
    asked: str = ""
    cards: tuple[CardAnswer, ...] = ()


def answer_of(
    state: NodeState | None, name: str, question: Question, verdict: Verdict, pod: Sequence[str]
) -> NodeAnswer:
    """A verdict in full; `pod` has the names of its containers in grant order."""
    if isinstance(verdict, Placement):
        return NodeAnswer(name, fits=True)
    facts = state.facts if state else None
    offered = _offered(state, verdict)
    plain = NodeAnswer(
        name,
        fits=False,
        reason=verdict.reason,
        detail=(facts.fault or facts.binding_reason or facts.paused) if facts else "",
        remedy=remedies.for_node(verdict.reason, len(offered)),
        unresolvable=verdict.unresolvable,
    )
    number = verdict.container
    request = question.request(verdict.vendor, number)
    if state is None or number is None or request is None:
        return plain
    return replace(
        plain,
        container=pod[number],
        asked=f"{request.count} x {_ask(request)}",
        cards=_cards(state, question, verdict, request),
    )


def _ask(request: ContainerRequest) -> str:
    memory = (
        f"{request.memory_mib} MiB" if request.memory_mib else f"{request.memory_percent}% memory"
    )
    return f"({memory}, {request.cores}% cores)"


def _cards(
    state: NodeState, question: Question, refusal: Refusal, request: ContainerRequest
) -> tuple[CardAnswer, ...]:
    reasons = dict(refusal.cards)
    own = _earlier(state, question.part(refusal.vendor), refusal.container or 0)
    offer = state.facts.offer(refusal.vendor) if state.facts else None
    divided = partitions(state, offer) if offer else {}
    return tuple(
        _card(
            card,
            state.used.get(card.uuid, NOTHING) + own.get(card.uuid, NOTHING),
            request,
            reasons.get(position, ""),
            divided.get(position),
        )
        for position, card in enumerate(_offered(state, refusal))
    )


def _offered(state: NodeState | None, refusal: Refusal) -> tuple[Card, ...]:
    """The node's cards of the family that it is short of."""
    facts = state.facts if state else None
    if facts is None or not refusal.vendor:
        return facts.cards if facts else ()
    offer = facts.offer(refusal.vendor)
    return offer.cards if offer else ()


def _earlier(state: NodeState, part: Part, container: int) -> Mapping[str, Share]:
    """What the pod's own containers before this one would take of each card."""
    slots = part.shape.slots[:container]
    shorter = replace(part, shape=PodShape(slots, part.shape.selectors), ids=0)
    placed = place(state, Question((shorter,)))
    taken: dict[str, Share] = {}
    if isinstance(placed, Placement):
        for slot, devices in zip(slots, placed.slots, strict=True):
            if slot.role is Role.INIT:
                continue
            for device in devices:
                share = share_of(device.memory_mib, device.cores)
                taken[device.uuid] = taken.get(device.uuid, NOTHING) + share
    return taken


def _card(
    card: Card,
    used: Share,
    request: ContainerRequest,
    reason: str,
    partition: Partition | None,
) -> CardAnswer:
    answer = CardAnswer(
        uuid=card.uuid,
        index=card.index,
        type=card.type,
        asked_memory_mib=request.memory_on(card.memory_mib),
        free_memory_mib=card.memory_mib - used.memory_mib,
        memory_mib=card.memory_mib,
        asked_cores=request.cores,
        free_cores=card.cores - used.cores,
        cores=card.cores,
        free_slots=card.slots - used.slots,
        slots=card.slots,
        reason=reason,
        remedy="",
        blocked=tuple(map(_blocked, card.blocked)),
    )
    room = remedies.Room(
        free_memory_mib=answer.free_memory_mib,
        short_memory_mib=answer.asked_memory_mib - answer.free_memory_mib,
        free_cores=answer.free_cores,
        asked_cores=request.cores,
        tasks=used.slots,
        largest_mib=partition.largest_mib if partition else 0,
    )
    return replace(answer, remedy=remedies.for_card(reason, room))


def _blocked(entry: BlockedPlacement) -> str:
    first, size = entry.placement.start, entry.placement.size
    place = f"slice {first}" if size == 1 else f"slices {first}-{first + size - 1}"
    return f"{place}: {entry.reason}"
