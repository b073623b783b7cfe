"""What the status page shows: some nodes with their cards, the pods on these, and who waits."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hami_extender.inventory import Card, NodeFacts
from hami_extender.snapshot import Snapshot
from hami_extender.survey import PodAnswer
from hami_extender.usage import NodeState
from hamikit.footprint import NOTHING, Share

NODES_SHOWN = 20
PODS_SHOWN = 20


class Waits(Protocol):
    """Who waits."""

    def waiting(self, first: int = ..., limit: int = ...) -> list[PodAnswer]:
        """Some of the pods without a node, with their reasons."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a pod holds of a card; `left` and `width` are percent of the card's memory."""

    pod: str
    memory_mib: int
    cores: int
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class CardBar:
    """A card with what is taken of it; `note` says why it takes no more, if it does not."""

    uuid: str
    index: int
    type: str
    note: str
    memory_mib: int
    cores: int
    slots: int
    used: Share
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class NodeBars:
    """A node; `note` says what is the matter with it."""

    name: str
    note: str
    cards: tuple[CardBar, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the whole cluster."""

    nodes: int
    cards: int
    memory_mib: int
    used_memory_mib: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Window:
    """Which part is asked for: pages count from 0, `name` is part of a node's name."""

    name: str = ""
    nodes_page: int = 0
    pods_page: int = 0


@dataclass(frozen=True, slots=True)
class Overview:
    """One view of the cluster; `matching` counts the nodes whose name matches."""

    missing: str
    window: Window
    totals: Totals
    matching: int
    nodes: tuple[NodeBars, ...]
    waiting: tuple[PodAnswer, ...]


class Overviews:
    """Reads what a window needs and no more."""

    def __init__(self, snapshot: Snapshot, waits: Waits, missing: Callable[[], str]) -> None:
        self._snapshot, self._waits, self._missing = snapshot, waits, missing

    def read(self, window: Window) -> Overview:
        """The cluster now. Nodes by name; those without a card of ours are left out."""
        gap = self._missing()
        with self._snapshot.lock:
            known = {
                name: state
                for name, state in self._snapshot.ledger.nodes.items()
                if (state.facts is not None and state.facts.offers) or state.holders
            }
            names = sorted(name for name in known if window.name in name)
            start = window.nodes_page * NODES_SHOWN
            nodes = tuple(_node(known[name]) for name in names[start : start + NODES_SHOWN])
            waiting = sum(not pod.spec.node_name for pod in self._snapshot.pods.values())
            totals = _totals(known.values(), waiting)
        pods = self._waits.waiting(window.pods_page * PODS_SHOWN, PODS_SHOWN)
        return Overview(gap, window, totals, len(names), nodes, tuple(pods))


def _totals(states: Iterable[NodeState], waiting: int) -> Totals:
    nodes = cards = memory = used = 0
    for state in states:
        nodes += 1
        used += sum(share.memory_mib for share in state.used.values())
        if state.facts is not None:
            cards += len(state.facts.cards)
            memory += sum(card.memory_mib for card in state.facts.cards)
    return Totals(nodes, cards, memory, used, waiting)


def _node(state: NodeState) -> NodeBars:
    facts = state.facts or NodeFacts(state.name, paused="the node is gone; pods of it are not yet")
    held: dict[str, list[tuple[str, Share]]] = {}
    for holding in state.holders.values():
        for uuid, share in holding.taken.items():
            held.setdefault(uuid, []).append((holding.pod, share))
    cards = tuple(
        _card(card, state.used.get(card.uuid, NOTHING), held.pop(card.uuid, []), facts)
        for card in facts.cards
    )
    gone = [f"{uuid} is gone, but held" for uuid in sorted(held)]
    notes = [facts.paused, facts.fault, *gone]
    return NodeBars(state.name, "; ".join(filter(None, notes)), cards)


def _card(card: Card, used: Share, held: Sequence[tuple[str, Share]], facts: NodeFacts) -> CardBar:
    notes = []
    if not card.health:
        notes.append("unhealthy")
    if card.uuid in facts.cordoned:
        notes.append("cordoned")
    return CardBar(
        uuid=card.uuid,
        index=card.index,
        type=card.type,
        note=", ".join(notes),
        memory_mib=card.memory_mib,
        cores=card.cores,
        slots=card.slots,
        used=used,
        pieces=tuple(_pieces(card.memory_mib, sorted(held, key=lambda pair: pair[0]))),
    )


def _pieces(memory_mib: int, held: Sequence[tuple[str, Share]]) -> Iterable[Piece]:
    whole, left = max(1, memory_mib, sum(share.memory_mib for _, share in held)), 0.0
    for pod, share in held:
        width = 100 * share.memory_mib / whole
        yield Piece(pod, share.memory_mib, share.cores, round(left, 3), round(width, 3))
        left += width
