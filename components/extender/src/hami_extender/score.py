"""Which cards and which nodes are better: HAMi v2.10's orders and figures.

Figures are rounded to 32-bit floats after each operation, so that ties fall as HAMi's do.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from hami_extender.inventory import Card
from hamikit.footprint import NOTHING, Share
from hamikit.weights import EQUAL, Weights

BINPACK = "binpack"
SPREAD = "spread"
MUTEX = "mutex"
NUMA = "numa"
TOPOLOGY = "topology-aware"
BEST_PRIORITY = 10
"""kube-scheduler's MaxExtenderPriority."""

_FLOAT = struct.Struct("f")


def _f32(value: float) -> float:
    rounded: float = _FLOAT.unpack(_FLOAT.pack(value))[0]
    return rounded


@lru_cache(maxsize=65536)
def _figure(parts: tuple[tuple[int, int], ...], weights: Weights = EQUAL) -> float:
    """10 x the weighted sum of used/total (slots, cores, memory); 0 where a total is 0.

    Cached: cards of one model with equal use are most of a cluster.
    """
    total = 0.0
    for (used, of), weight in zip(parts, (weights.slot, weights.core, weights.memory), strict=True):
        if of == 0:
            return 0.0
        total = _f32(total + _f32(weight * _f32(used / of)))
    return _f32(10 * total)


def card_score(card: Card, used: Share, ask: Share = NOTHING, weights: Weights = EQUAL) -> float:
    """How full a card is, with what is asked of it where HAMi counts that."""
    return _figure(
        (
            (ask.slots + used.slots, card.slots),
            (ask.cores + used.cores, card.cores),
            (ask.memory_mib + used.memory_mib, card.memory_mib),
        ),
        weights,
    )


def node_score(cards: Sequence[Card], used: Mapping[str, Share]) -> float:
    """How full a node is, before the pod in question."""
    slots = memory_mib = cores = 0
    for card in cards:
        share = used.get(card.uuid)
        if share is not None:
            slots += share.slots
            memory_mib += share.memory_mib
            cores += share.cores
    return _figure(
        (
            (slots, sum(card.slots for card in cards)),
            (cores, sum(card.cores for card in cards)),
            (memory_mib, sum(card.memory_mib for card in cards)),
        )
    )


SortKey = Callable[[Card, Share, float], tuple[float, ...]]

_BINPACK: SortKey = lambda card, _used, score: (score, card.numa)  # noqa: E731
_SPREAD: SortKey = lambda card, _used, score: (-score, card.numa)  # noqa: E731
_MUTEX: SortKey = lambda card, used, _score: (-used.slots, card.numa)  # noqa: E731
_NUMA_BINPACK: SortKey = lambda card, _used, score: (-card.numa, score)  # noqa: E731
_NUMA_OTHER: SortKey = lambda card, _used, score: (card.numa, -score)  # noqa: E731
_NUMA_MUTEX: SortKey = lambda card, used, _score: (card.numa, -used.slots)  # noqa: E731

_LINKS: dict[str, SortKey] = {
    BINPACK: lambda _card, _used, score: (score,),
    SPREAD: lambda _card, _used, score: (-score,),
    NUMA: lambda card, _used, _score: (card.numa,),
}


def _chain(words: Sequence[str], *, numa_bind: bool) -> SortKey:
    """Keys of an ordered list of policies; unknown words are dropped, none left means spread."""
    links = list(dict.fromkeys(word for word in words if word in _LINKS)) or [SPREAD]
    if numa_bind:
        links = [NUMA, *(link for link in links if link != NUMA)]
    keys = [_LINKS[link] for link in links]

    def key(card: Card, used: Share, score: float) -> tuple[float, ...]:
        parts = [part for link in keys for part in link(card, used, score)]
        return (*parts, card.index)

    return key


def sort_key(policy: str, *, numa_bind: bool) -> SortKey:
    """The order of cards under a policy; what sorts last is taken first."""
    if policy == NUMA or "," in policy:
        return _chain([word.strip() for word in policy.split(",")], numa_bind=numa_bind)
    if numa_bind:
        # With numa-bind the group comes first under every policy, or a run could be torn apart.
        return {BINPACK: _NUMA_BINPACK, MUTEX: _NUMA_MUTEX}.get(policy, _NUMA_OTHER)
    return {BINPACK: _BINPACK, MUTEX: _MUTEX}.get(policy, _SPREAD)


def priorities(ranked: Sequence[str]) -> dict[str, int]:
    """kube-scheduler's 0..10 for nodes in ranked order: the best is alone at 10."""
    last = max(len(ranked) - 1, 1)
    return {
        name: BEST_PRIORITY if place == 0 else (BEST_PRIORITY - 1) * (last - place) // last
        for place, name in enumerate(ranked)
    }
