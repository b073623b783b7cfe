"""Nodes in the order of their scores, kept in order as single nodes change."""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator, Mapping
from operator import itemgetter

from hami_extender.score import SPREAD

SPARSE = 8
"""Fewer than one node in so many is faster sorted than looked up in the order of all."""
_NAME: Callable[[tuple[float, str]], str] = itemgetter(1)


class Ranking:
    """Nodes, the best of a policy first; equal scores are ordered by name."""

    def __init__(self, policy: str, scores: Mapping[str, float]) -> None:
        # Binpack wants the fullest first: its order is that of the negated scores.
        self._sign = 1 if policy == SPREAD else -1
        self._order = sorted((self._sign * score, name) for name, score in scores.items())
        self.scores = dict(scores)
        """Of all nodes that are ranked."""

    def among(self, asked: Collection[str], scores: Mapping[str, float]) -> Iterator[str]:
        """The nodes that are in both, in order; a set or a dict is asked fastest.

        All that have a score have to be ranked, with this very score.
        """
        # Names come nearly in order, which makes sorting them quick; what fits comes in none.
        few: Collection[str] = scores if len(scores) * 4 < len(asked) else asked
        many: Collection[str] = asked if few is scores else scores
        # Without a line of Python for each node: they may be thousands.
        if len(few) * SPARSE < len(self._order):
            found = sorted(filter(many.__contains__, few))
            # Equal scores stay in the order of their names, backwards too.
            found.sort(key=scores.__getitem__, reverse=self._sign < 0)
            return iter(found)
        return filter(many.__contains__, filter(few.__contains__, map(_NAME, self._order)))

    def put(self, name: str, score: float) -> None:
        """A node has this score now."""
        if self.scores.get(name) != score:
            self.remove(name)
            self.scores[name] = score
            insort(self._order, (self._sign * score, name))

    def remove(self, name: str) -> None:
        """A node is gone."""
        score = self.scores.pop(name, None)
        if score is not None:
            del self._order[bisect_left(self._order, (self._sign * score, name))]
