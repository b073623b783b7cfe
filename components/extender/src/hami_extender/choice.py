"""Which of the cards that would do are taken, where it matters which go together.

Candidates are positions in the order of preference; scores are those of the node's annotation.
"""

from collections.abc import Callable, Sequence

from hami_extender.inventory import Card, PairScores

MODULE = 2
"""Chips in one Ascend 910C module."""
STEPS = 20_000
"""How far the search for the best connected cards goes: enough for any real node, and a bound for
an annotation that was made to be slow."""

Score = Callable[[int, int], int]


def pair_score(cards: Sequence[Card], scores: PairScores) -> Score:
    """Points of a pair of positions, read from the first; what is not known is 0."""

    def of(first: int, second: int) -> int:
        return scores.get(cards[first].uuid, {}).get(cards[second].uuid, 0)

    return of


def loneliest(candidates: Sequence[int], score: Score) -> int:
    """The card with the least connection to the others, so that those stay together."""
    return min(
        candidates,
        key=lambda one: sum(score(one, other) for other in candidates if other != one),
    )


def best_connected(candidates: Sequence[int], count: int, score: Score) -> tuple[int, list[int]]:
    """The points and the members of the best connected group; the earliest of equal ones."""
    size = len(candidates)
    points = [[score(a, b) for b in candidates] for a in candidates]
    most = max((max(row) for row in points), default=0)
    best: tuple[int, list[int]] | None = None
    steps = 0

    def search(chosen: list[int], total: int, start: int) -> None:
        nonlocal best, steps
        steps += 1
        missing = count - len(chosen)
        if not missing:
            if best is None or total > best[0]:
                best = total, list(chosen)
            return
        pairs = missing * len(chosen) + missing * (missing - 1) // 2
        if best is not None and (total + pairs * most <= best[0] or steps > STEPS):
            return
        for place in range(start, size - missing + 1):
            gain = sum(points[member][place] for member in chosen)
            search([*chosen, place], total + gain, place + 1)

    search([], 0, 0)
    if best is None:
        return 0, []
    return best[0], [candidates[place] for place in best[1]]


def by_network(candidates: Sequence[int], count: int, cards: Sequence[Card]) -> list[int]:
    """Cards of the most populated network group first, filled in order."""
    groups: dict[int | None, list[int]] = {}
    for position in candidates:
        groups.setdefault(cards[position].network, []).append(position)
    ordered = sorted(groups.values(), key=len, reverse=True)
    return [position for group in ordered for position in group][:count]


def by_module(candidates: Sequence[int], count: int, cards: Sequence[Card]) -> list[int] | None:
    """Whole modules only; None where they do not make up exactly this many."""
    modules: dict[int, list[int]] = {}
    for position in candidates:
        modules.setdefault(cards[position].index // MODULE, []).append(position)
    chosen = [p for module in modules.values() if len(module) == MODULE for p in module][:count]
    return chosen if len(chosen) == count else None


def network_share(cards: Sequence[Card]) -> float:
    """Ten times the part of these cards that is in one network group; 0 where a card has none."""
    groups = [card.network for card in cards]
    if not groups or None in groups:
        return 0.0
    return 10 * max(map(groups.count, groups)) / len(groups)
