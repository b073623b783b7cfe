"""What is already known about questions: only nodes that changed are asked again."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import nsmallest
from itertools import filterfalse, islice

from hami_extender.digest import Digests, Traits
from hami_extender.placement import Placement, Refusal, Verdict, place
from hami_extender.question import Question
from hami_extender.quick import NOT_REGISTERED, Answer, Probe
from hami_extender.score import SPREAD
from hami_extender.usage import Ledger, NodeState
from hamikit.devices import SCORE_NONE

QUESTIONS_KEPT = 256
"""Different pod shapes in play at a time; each keeps one answer a node."""

Place = Callable[[NodeState | None, Question], Verdict]


class Table:
    """The answers to one question, kept up with the ledger.

    A node is in `_stale`, and nowhere else, from its last change until somebody asks about it:
    kube-scheduler may ask about a tenth of the nodes at a time. Then it is in `_fits`, in
    `_refused` (None where nobody has asked why yet), or in `_open` until somebody needs to know for
    certain.
    """

    def __init__(self, ledger: Ledger, digests: Digests, probe: Probe, decide: Place) -> None:
        self._ledger, self._digests, self._decide = ledger, digests, decide
        self._probe, self.question = probe, probe.question
        self._by_name = all(part.family.score == SCORE_NONE for part in self.question.parts)
        self._position = -1
        self._stale: set[str] = set()
        # With their scores: what looks a node up here need not look it up elsewhere.
        self._fits: dict[str, float] = {}
        self._open: set[str] = set()
        self._refused: dict[str, Refusal | None] = {}

    def refresh(self) -> None:
        """Take note of the nodes that changed."""
        journal = self._ledger.journal
        if self._position == journal.position:
            return
        changed: Iterable[str] | None = None
        if self._position >= 0:
            changed = journal.since(self._position)
        if changed is None:
            self._fits, self._open, self._refused = {}, set(), {}
            changed = self._digests.of
        self._position = journal.position
        for name in changed:
            self._stale.add(name)
            self._fits.pop(name, None)
            self._open.discard(name)
            self._refused.pop(name, None)

    def _catch_up(self, asked: Collection[str]) -> None:
        """Ask those of these nodes that changed."""
        if len(self._stale) < len(asked):
            due = filter(asked.__contains__, self._stale)
        else:
            # Most are known to fit, and who needs them looks there next.
            due = filter(self._stale.__contains__, filterfalse(self._fits.__contains__, asked))
        self._ask(list(due))

    def _ask(self, names: Iterable[str]) -> None:
        """Ask these nodes, which changed."""
        known, ask = self._digests.of, self._probe.ask
        for name in names:
            self._stale.discard(name)
            digest = known.get(name)
            if digest is None:
                continue
            said = ask(digest)
            if said is Answer.FITS:
                self._fits[name] = digest.score
            elif said is Answer.MAYBE:
                self._open.add(name)
            else:
                self._refused[name] = said if isinstance(said, Refusal) else None

    def best(self, asked: Collection[str], policy: str, limit: int) -> list[str]:
        """At most `limit` of these nodes that fit, best first; equal ones are ordered by name.

        `asked` is a set or a dict.
        """
        self._catch_up(asked)
        if not self._fits and not self._open:
            return []
        if not self._by_name:
            return self._best_by_placement(asked, policy, limit)
        ranking, fits, open_ = self._digests.ranking(policy), self._fits, self._open
        if not open_:
            return list(islice(ranking.among(asked, fits), limit))
        found: list[str] = []
        for name in ranking.among(asked, ranking.scores):
            if name in fits or (name in open_ and self._settled(name)):
                found.append(name)
                if len(found) == limit:
                    break
        return found

    def _best_by_placement(self, asked: Collection[str], policy: str, limit: int) -> list[str]:
        """The same where the chosen devices count: every node that fits is looked at closely."""
        sign = 1 if policy == SPREAD else -1
        fitting = ((name, self.verdict(name)) for name in asked if self.fits(name))
        pairs = [(sign * v.score, name) for name, v in fitting if isinstance(v, Placement)]
        return [name for _, name in nsmallest(limit, pairs)]

    def fits(self, name: str) -> bool:
        """Whether one node fits."""
        if name in self._stale:
            self._ask((name,))
        return name in self._fits or (name in self._open and self._settled(name))

    def fitting(self, asked: Iterable[str]) -> list[str]:
        """Those of these nodes that fit."""
        return [name for name in asked if self.fits(name)]

    def refusals(self, asked: Iterable[str]) -> dict[str, Refusal]:
        """Why each of these nodes does not take the pod; those that fit are left out."""
        found: dict[str, Refusal] = {}
        refused, stale = self._refused, self._stale
        for name in asked:
            if name in stale:
                self._ask((name,))
            refusal = refused.get(name)
            if refusal is not None:
                found[name] = refusal
            elif not self.fits(name):
                found[name] = self._why(name)
        return found

    def verdict(self, name: str) -> Verdict:
        """The whole answer of one node, its devices too."""
        return self._decide(self._ledger.nodes.get(name), self.question)

    def _settled(self, name: str) -> bool:
        """Look closely at an open node; whether it fits."""
        self._open.discard(name)
        verdict = self.verdict(name)
        if isinstance(verdict, Refusal):
            self._refused[name] = verdict
            return False
        self._fits[name] = self._digests.of[name].score
        return True

    def _why(self, name: str) -> Refusal:
        """The reason of a node that does not fit."""
        known = self._refused.get(name)
        if known is not None:
            return known
        if name not in self._refused:
            return NOT_REGISTERED
        verdict = self.verdict(name)
        if isinstance(verdict, Refusal):
            self._refused[name] = verdict
            return verdict
        raise AssertionError(f"{name}: a quick no where a closer look finds room")


class Verdicts:
    """The tables of the questions asked lately. Not thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        kept: int = QUESTIONS_KEPT,
        decide: Place = place,
        prober: Callable[[Question, Sequence[Traits]], Probe] = Probe,
    ) -> None:
        self._ledger, self._kept, self._decide, self._prober = ledger, kept, decide, prober
        self._digests = Digests(ledger.nodes, ledger.journal)
        self._tables: OrderedDict[Question, Table] = OrderedDict()
        self._latest: tuple[Question, Table] | None = None

    def table(self, question: Question) -> Table:
        """What all nodes say to the question now."""
        self._digests.refresh()
        if self._latest is None or self._latest[0] is not question:
            # Prioritize asks what filter asked just before; to find it again is no small part.
            self._latest = question, self._table(question)
        table = self._latest[1]
        table.refresh()
        return table

    def _table(self, question: Question) -> Table:
        table = self._tables.get(question)
        if table is None:
            probe = self._prober(question, self._digests.traits)
            table = Table(self._ledger, self._digests, probe, self._decide)
            self._tables[question] = table
            if len(self._tables) > self._kept:
                self._tables.popitem(last=False)
        else:
            self._tables.move_to_end(question)
        return table

    def fits_any(self, question: Question, names: Iterable[str]) -> bool:
        """Whether one of these nodes fits."""
        fits = self.table(question).fits
        return any(fits(name) for name in names)
