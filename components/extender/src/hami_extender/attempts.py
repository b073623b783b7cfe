"""What kube-scheduler last asked about each pod that it could not place."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from hami_extender.placement import Refusal
from hami_extender.question import Question
from hami_extender.snapshot import Snapshot
from hamikit.objects import Pod

PODS_KEPT = 4096
LEFT_OUT_KEPT = 256
"""Names kept of the nodes that were not asked about; beyond that only their number is."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One filter that left no node; `left_out` are nodes with cards that it did not name."""

    at: float
    asked: int
    left_out: tuple[str, ...]


class Attempts:
    """The last attempt of each pod, the oldest forgotten first."""

    def __init__(self, snapshot: Snapshot, *, now: Callable[[], float] = time.monotonic) -> None:
        self._snapshot, self._now = snapshot, now
        self._attempts: OrderedDict[str, Attempt] = OrderedDict()

    def refused(self, pod: Pod, _question: Question, refusals: dict[str, Refusal]) -> None:
        """No node fits. The snapshot's lock is held."""
        left_out = [
            name
            for name, state in self._snapshot.ledger.nodes.items()
            if name not in refusals and state.facts is not None and state.facts.cards
        ]
        attempt = Attempt(self._now(), len(refusals), tuple(left_out[:LEFT_OUT_KEPT]))
        self._attempts[pod.metadata.uid] = attempt
        self._attempts.move_to_end(pod.metadata.uid)
        if len(self._attempts) > PODS_KEPT:
            self._attempts.popitem(last=False)

    def last(self, uid: str) -> tuple[Attempt, float] | None:
        """The pod's last attempt and how many seconds ago it was. The lock is held."""
        attempt = self._attempts.get(uid)
        return (attempt, self._now() - attempt.at) if attempt else None
