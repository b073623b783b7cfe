"""Who has to wait for whom on a card, and who has company there: the decision alone.

As in HAMi: of the containers on a card, those of a higher priority (a smaller number) that compute
keep those of a lower one from launching; compute limits that hold only under contention hold while
another container of the same or a higher priority computes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

MS: Final = 1_000_000
IDLE_NS: Final = 120 * MS
"""The limiter publishes launches at some 20 Hz, so an active task looks up to 70 ms old: with that,
no launch for 50 ms is idle. It becomes active at its first launch."""
RUN_NS: Final = 100 * MS
"""Who was let go runs at least this long: bursts make nobody flap faster."""
STARVED_NS: Final = 10_000 * MS
RELIEF_NS: Final = 200 * MS
"""Who has waited for STARVED_NS runs for RELIEF_NS, whatever the others do: nobody starves."""
COMPANY_NS: Final = 1_000 * MS
"""Contention lasts this long after the neighbour's last launch."""
SKEW_NS: Final = 1_000 * MS
"""A launch further in the future than this is a tenant's invention."""

Key = tuple[str, str]
"""Pod UID and container."""


class Reason(StrEnum):
    """Why a container is in its state."""

    ALONE = "alone"
    IDLE_NEIGHBOURS = "idle_neighbours"
    NEIGHBOUR_ACTIVE = "neighbour_active"
    HIGHER_PRIORITY_ACTIVE = "higher_priority_active"
    RELIEF = "relief"
    LET_RUN = "let_run"


@dataclass(frozen=True, slots=True)
class Task:
    """A container as it is now; priority 0 is the highest; `last_ns` is Unix time, 0: never."""

    key: Key
    priority: int
    cards: frozenset[str]
    last_ns: int = 0

    def active(self, now_ns: int, within_ns: int) -> bool:
        """Whether it has launched something lately."""
        return -SKEW_NS <= now_ns - self.last_ns <= within_ns


@dataclass(frozen=True, slots=True)
class Decision:
    """What a container is told, and why."""

    blocked: bool
    contended: bool
    reason: Reason


@dataclass(slots=True)
class _Memory:
    """What has to be remembered of a container: since when it waits, till when it may run."""

    blocked_since: int | None = None
    may_run_until: int = 0
    relieved: bool = False


@dataclass(slots=True)
class Feedback:
    """Decides at each look; remembers only how long somebody has waited or was let run."""

    _memories: dict[Key, _Memory] = field(default_factory=dict)

    def look(self, tasks: Iterable[Task], now_ns: int) -> Mapping[Key, Decision]:
        """A decision for each container, at Unix time `now_ns`."""
        present = tuple(tasks)
        self._memories = {t.key: self._memories.get(t.key) or _Memory() for t in present}
        residents = Counter(card for task in present for card in task.cards)
        busy: dict[str, list[Task]] = defaultdict(list)
        for task in present:
            if task.active(now_ns, COMPANY_NS):
                for card in task.cards:
                    busy[card].append(task)
        return {
            task.key: self._decide(
                task,
                [other for card in task.cards for other in busy[card] if other.key != task.key],
                now_ns,
                alone=all(residents[card] == 1 for card in task.cards),
            )
            for task in present
        }

    def _decide(self, task: Task, others: list[Task], now_ns: int, *, alone: bool) -> Decision:
        pressed = any(o.priority < task.priority and o.active(now_ns, IDLE_NS) for o in others)
        blocked, reason = _next(self._memories[task.key], now_ns, pressed=pressed)
        contended = any(other.priority <= task.priority for other in others)
        if reason is None:
            plain = Reason.ALONE if alone else Reason.IDLE_NEIGHBOURS
            reason = Reason.NEIGHBOUR_ACTIVE if contended else plain
        return Decision(blocked, contended, reason)


def _next(memory: _Memory, now_ns: int, *, pressed: bool) -> tuple[bool, Reason | None]:
    """Whether a container waits now, and why where that is not plain."""
    if memory.blocked_since is None:
        if not pressed:
            return False, None
        if now_ns < memory.may_run_until:
            return False, Reason.RELIEF if memory.relieved else Reason.LET_RUN
        memory.blocked_since = now_ns
        return True, Reason.HIGHER_PRIORITY_ACTIVE
    # A clock that was set back must not make anybody wait longer.
    memory.blocked_since = min(memory.blocked_since, now_ns)
    starved = now_ns - memory.blocked_since >= STARVED_NS
    if pressed and not starved:
        return True, Reason.HIGHER_PRIORITY_ACTIVE
    memory.blocked_since, memory.relieved = None, pressed
    memory.may_run_until = now_ns + (RELIEF_NS if pressed else RUN_NS)
    return False, Reason.RELIEF if pressed else None
