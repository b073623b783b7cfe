"""What is already known about questions: only nodes that changed are asked again."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from hami_extender.placement import Placement, Refusal, Verdict, place
from hami_extender.question import Question
from hami_extender.usage import Ledger, NodeState

QUESTIONS_KEPT = 256
"""Different pod shapes in play at a time; each keeps one answer a node."""

Place = Callable[[NodeState | None, Question], Verdict]


class Table:
    """The answers to one question, each valid for one version of its node."""

    def __init__(self, nodes: Mapping[str, NodeState], question: Question, decide: Place) -> None:
        self._nodes, self._question, self._decide = nodes, question, decide
        self._known: dict[str, tuple[int, Verdict]] = {}

    def __call__(self, name: str) -> Verdict:
        """The verdict on one node."""
        state = self._nodes.get(name)
        if state is None:
            self._known.pop(name, None)
            return self._decide(None, self._question)
        verdict = self._decide(state, self._question)
        self._known[name] = state.version, verdict
        return verdict

    def split(self, names: Iterable[str]) -> tuple[dict[str, Placement], dict[str, Refusal]]:
        """The nodes that fit and those that do not; cheap where nothing has changed."""
        nodes, known = self._nodes, self._known
        fits: dict[str, Placement] = {}
        refusals: dict[str, Refusal] = {}
        for name in names:
            state, entry = nodes.get(name), known.get(name)
            if state is None or entry is None or entry[0] != state.version:
                verdict = self(name)
            else:
                verdict = entry[1]
            if isinstance(verdict, Placement):
                fits[name] = verdict
            else:
                refusals[name] = verdict
        return fits, refusals


class Verdicts:
    """The tables of the questions asked lately. Not thread-safe."""

    def __init__(
        self, ledger: Ledger, *, kept: int = QUESTIONS_KEPT, decide: Place = place
    ) -> None:
        self._ledger, self._kept, self._decide = ledger, kept, decide
        self._tables: OrderedDict[Question, Table] = OrderedDict()

    def table(self, question: Question) -> Table:
        """What is known about the question."""
        table = self._tables.get(question)
        if table is None:
            table = Table(self._ledger.nodes, question, self._decide)
            self._tables[question] = table
            if len(self._tables) > self._kept:
                self._tables.popitem(last=False)
        else:
            self._tables.move_to_end(question)
        return table

    def fits_any(self, question: Question, names: Iterable[str]) -> bool:
        """Whether one of these nodes fits."""
        split = self.table(question).split
        return any(split((name,))[0] for name in names)
