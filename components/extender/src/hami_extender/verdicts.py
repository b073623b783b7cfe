"""What is already known about questions: only nodes that changed are asked again."""

from collections import OrderedDict
from collections.abc import Callable

from hami_extender.placement import Question, Verdict, place
from hami_extender.usage import Ledger, NodeState

QUESTIONS_KEPT = 256
"""Different pod shapes in play at a time; each keeps one answer a node."""

Place = Callable[[NodeState | None, Question], Verdict]


class Verdicts:
    """Answers by question and node, valid for one version of the node. Not thread-safe."""

    def __init__(
        self, ledger: Ledger, *, kept: int = QUESTIONS_KEPT, decide: Place = place
    ) -> None:
        self._ledger, self._kept, self._decide = ledger, kept, decide
        self._tables: OrderedDict[Question, dict[str, tuple[int, Verdict]]] = OrderedDict()

    def table(self, question: Question) -> Callable[[str], Verdict]:
        """The function from a node's name to its verdict on the question."""
        known = self._tables.setdefault(question, {})
        self._tables.move_to_end(question)
        if len(self._tables) > self._kept:
            self._tables.popitem(last=False)
        nodes, decide = self._ledger.nodes, self._decide

        def verdict(name: str) -> Verdict:
            state = nodes.get(name)
            if state is None:
                known.pop(name, None)
                return decide(None, question)
            entry = known.get(name)
            if entry is None or entry[0] != state.version:
                entry = known[name] = (state.version, decide(state, question))
            return entry[1]

        return verdict
