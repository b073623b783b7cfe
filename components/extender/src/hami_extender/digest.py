"""Nodes in short: all that decides whether a request fits, so compact that equal cards are equal.

A card is a key: its traits and what is used of it, without its name. What a request says to a key
is worked out once, however many cards have it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat

from hami_extender.inventory import Card, NodeFacts, Offer
from hami_extender.journal import Journal
from hami_extender.placement import why_closed
from hami_extender.ranking import Ranking
from hami_extender.score import node_score
from hami_extender.usage import NodeState
from hamikit.footprint import NOTHING, Share

Key = tuple[int, int, int, int, int]
"""Number of the traits; slots, MiB, percent and exclusive tasks in use."""
Traits = tuple[Card, bool]
"""A card that stands for all of its kind, and whether it is cordoned."""


@dataclass(frozen=True, slots=True)
class OfferDigest:
    """One family of a node: why it takes nothing, how many ids kubelet has left, its cards.

    `kinds` are the numbers of the cards' traits, `divided` whether MIG divides one of them.
    """

    closed: str | None
    ids_free: int
    keys: tuple[Key, ...]
    offer: Offer
    kinds: tuple[int, ...]
    divided: bool


@dataclass(frozen=True, slots=True)
class Digest:
    """A node with these facts; `score` is how full it is."""

    score: float
    offers: Mapping[str, OfferDigest]
    facts: NodeFacts


class Digests:
    """The digests of all known nodes, and their order by score; both follow the journal."""

    def __init__(self, nodes: Mapping[str, NodeState], journal: Journal) -> None:
        self._nodes, self._journal = nodes, journal
        self._position = 0
        self._numbers: dict[tuple[object, ...], int] = {}
        self.traits: list[Traits] = []
        self.of: dict[str, Digest] = {}
        self.rankings: dict[str, Ranking] = {}

    def ranking(self, policy: str) -> Ranking:
        """The nodes in the order of a policy."""
        ranking = self.rankings.get(policy)
        if ranking is None:
            scores = {name: digest.score for name, digest in self.of.items()}
            ranking = self.rankings[policy] = Ranking(policy, scores)
        return ranking

    def refresh(self) -> None:
        """Take over what has changed."""
        changed: Iterable[str] | None = self._journal.since(self._position)
        if changed is None:
            changed = self.of.keys() | self._nodes.keys()
        self._position = self._journal.position
        for name in changed:
            state = self._nodes.get(name)
            if state is None or state.facts is None:
                self.of.pop(name, None)
                for ranking in self.rankings.values():
                    ranking.remove(name)
            else:
                digest = self.of[name] = self._digest(state, state.facts)
                for ranking in self.rankings.values():
                    ranking.put(name, digest.score)

    def _digest(self, state: NodeState, facts: NodeFacts) -> Digest:
        before = self.of.get(state.name)
        known = before.offers if before is not None and before.facts is facts else {}
        offers = {
            offer.vendor: self._offer(state, facts, offer, known.get(offer.vendor))
            for offer in facts.offers
        }
        return Digest(node_score(facts.cards, state.used), offers, facts)

    def _offer(
        self, state: NodeState, facts: NodeFacts, offer: Offer, before: OfferDigest | None
    ) -> OfferDigest:
        if before is not None:
            # Most changes are of what is used.
            kinds, divided = before.kinds, before.divided
        else:
            kinds = tuple(self._kind(card, card.uuid in facts.cordoned) for card in offer.cards)
            divided = any(card.profiles for card in offer.cards)
        return OfferDigest(
            closed=why_closed(state, facts, offer),
            ids_free=offer.allocatable - state.ids.get(offer.vendor, 0),
            keys=tuple(map(_key, kinds, offer.cards, repeat(state.used))),
            offer=offer,
            kinds=kinds,
            divided=divided,
        )

    def _kind(self, card: Card, cordoned: bool) -> int:  # noqa: FBT001
        """The number of a card's traits."""
        traits = (
            card.slots,
            card.memory_mib,
            card.cores,
            card.type,
            card.mode,
            card.health,
            cordoned,
        )
        number = self._numbers.get(traits)
        if number is None:
            number = self._numbers[traits] = len(self.traits)
            self.traits.append((card, cordoned))
        return number


def _key(kind: int, card: Card, used: Mapping[str, Share]) -> Key:
    share = used.get(card.uuid, NOTHING)
    return kind, share.slots, share.memory_mib, share.cores, share.exclusive
