"""Feedback at work: watches who computes on a card and writes the decisions into control files.

Of a control file it owns `blocked`, its lease, and `contended`; all else is the device plugin's.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from hami_monitor.containers import Unreadable, containers_of, is_foreign
from hami_monitor.feedback import Decision, Feedback, Key, Reason, Task
from hami_monitor.gauges import Families
from hamikit import names
from hamikit.objects import Pod
from hamikit.region import Activity, Control, RegionError, read_control, update_control

log = structlog.get_logger()

FAST_S: Final = 0.025
"""Between two looks where one container may have to wait for another."""
SLOW_S: Final = 0.25
"""Until a new process is seen there."""
COMPANY_S: Final = 0.5
"""Between two looks where containers share a card, but none has to wait."""
REFRESH_S: Final = 5.0
"""Which containers there are is read anew this often even if no pod has changed."""
LOWEST_PRIORITY: Final = 15
LEASE_NS: Final = 5_000_000_000
"""A container waits this long after the last word of a monitor that was killed; renewed at half."""


@dataclass(slots=True)
class _Member:
    """A container with a control file, as it was when last read."""

    pod: Pod
    path: Path
    task: Task
    activity: Activity
    blocked: bool
    contended: bool
    blocked_until_ns: int
    presses: bool = False
    """Whether somebody may have to wait for it."""
    refused: str = ""
    """Why it could not be told; said once."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a container was told last."""

    pod: Pod
    container: str
    priority: int
    decision: Decision


class Governor:
    """Looks as often as the containers on the cards make it worth while, in a thread of its own.

    `changed` ends a pause: a pod came, went or changed, or it is time to stop.
    """

    def __init__(
        self,
        root: Path,
        pods: Callable[[], Iterable[Pod]],
        changed: threading.Event,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root, self._pods, self._wall_ns, self._now = root, pods, wall_ns, now
        self._feedback, self._unreadable = Feedback(), Unreadable()
        self._members: dict[Key, _Member] = {}
        self._refreshed = self._scanned = -math.inf
        self._changed = changed
        self._lock = threading.Lock()
        self._standing: tuple[Standing, ...] = ()
        self._writes: Counter[str] = Counter()

    def standing(self) -> tuple[Standing, ...]:
        """What each container was told last."""
        with self._lock:
            return self._standing

    def writes(self) -> dict[str, int]:
        """How often a container was told something, by outcome: written, gone, failed."""
        with self._lock:
            return dict(self._writes)

    def start(self, stopping: threading.Event) -> threading.Thread:
        """`run` in a thread of its own."""
        thread = threading.Thread(target=self.run, args=(stopping,), name="feedback", daemon=True)
        thread.start()
        return thread

    def run(self, stopping: threading.Event) -> None:
        """Look until `stopping`, then let everybody run."""
        while not stopping.is_set():
            try:
                pause_s = self.look()
            except Exception:
                log.exception("feedback failed")
                pause_s = REFRESH_S
            self._changed.wait(pause_s)
        self.let_go()

    def look(self) -> float:
        """One look; returns how long to pause."""
        now = self._now()
        if self._changed.is_set() or now - self._refreshed >= REFRESH_S:
            self._changed.clear()
            self._refreshed = now
            self._refresh()
        self._read_activity(now)
        tasks = [member.task for member in self._members.values()]
        decisions = self._feedback.look(tasks, self._wall_ns())
        for key, decision in decisions.items():
            member = self._members[key]
            self._tell(member, blocked=decision.blocked, contended=decision.contended)
        standing = tuple(
            Standing(member.pod, key[1], member.task.priority, decisions[key])
            for key, member in self._members.items()
        )
        with self._lock:
            self._standing = standing
        if any(member.presses for member in self._members.values()):
            return FAST_S
        alone = all(d.reason is Reason.ALONE for d in decisions.values())
        return REFRESH_S if alone else COMPANY_S

    def let_go(self) -> None:
        """Take back what was told: without us nobody would."""
        for member in self._members.values():
            self._tell(member, blocked=False, contended=False)

    def _refresh(self) -> None:
        """Which containers there are, on which cards, with which priority."""
        before, self._members = self._members, {}
        for folder, pod, container in containers_of(self._root, self._pods(), self._unreadable):
            try:
                if is_foreign(folder):
                    continue  # HAMi's own monitor is its feedback
                control = read_control(folder / names.CONTROL_NAME)
            except (OSError, RegionError):
                continue  # counted where containers are reported
            key = (pod.metadata.uid, container)
            known = before.get(key)
            self._members[key] = _Member(
                pod=pod,
                path=folder / names.CONTROL_NAME,
                task=_task(key, control, known.task.last_ns if known else 0),
                activity=known.activity if known else Activity(folder / names.USAGE_NAME),
                blocked=control.blocked,
                contended=control.contended,
                blocked_until_ns=control.blocked_until_ns,
                refused=known.refused if known else "",
            )
        most: dict[str, int] = {}
        for member in self._members.values():
            for card in member.task.cards:
                most[card] = max(most.get(card, 0), member.task.priority)
        for member in self._members.values():
            task = member.task
            member.presses = any(most[card] > task.priority for card in task.cards)

    def _read_activity(self, now: float) -> None:
        scan = now - self._scanned >= SLOW_S
        if scan:
            self._scanned = now
        for member in self._members.values():
            if scan or member.presses:
                try:
                    last_ns = member.activity.newest_ns(scan=scan)
                except (OSError, RegionError):
                    last_ns = 0  # whose account cannot be read makes nobody wait
                if last_ns != member.task.last_ns:
                    member.task = replace(member.task, last_ns=last_ns)

    def _tell(self, member: _Member, *, blocked: bool, contended: bool) -> None:
        now_ns = int(self._now() * 1e9)
        told = (member.blocked, member.contended) == (blocked, contended)
        if told and not (blocked and member.blocked_until_ns - now_ns < LEASE_NS // 2):
            return
        until_ns = now_ns + LEASE_NS if blocked else 0

        def change(present: Control) -> Control:
            return replace(present, blocked=blocked, contended=contended, blocked_until_ns=until_ns)

        outcome, refused = "written", ""
        try:
            update_control(member.path, change)
        except FileNotFoundError:
            outcome = "gone"  # the container ended meanwhile
        except (OSError, RegionError) as error:
            outcome, refused = "failed", str(error)
            if refused != member.refused:
                log.warning("control file not changed", pod=member.pod.key, error=refused)
        # What failed is tried again when the file has been read anew.
        member.blocked, member.contended, member.blocked_until_ns = blocked, contended, until_ns
        member.refused = refused
        with self._lock:
            self._writes[outcome] += 1


def _task(key: Key, control: Control, last_ns: int) -> Task:
    priority = min(max(control.priority, 0), LOWEST_PRIORITY)
    return Task(key, priority, frozenset(device.uuid for device in control.devices), last_ns)


class FeedbackCollector(Collector):
    """Who waits, who has company, and why."""

    def __init__(self, governor: Governor, node: str) -> None:
        self._governor, self._node = governor, node

    def collect(self) -> Iterator[Metric]:
        """What each container was told last."""
        who = ("namespace", "pod", "container")
        states = Families(
            who,
            ("hami_container_priority", "The container's priority; 0 is the highest."),
            ("hami_container_blocked", "1 while the container may not launch."),
            ("hami_container_contended", "1 while others compute on one of its cards."),
        )
        name = "hami_container_feedback_info"
        reasons = Families((*who, "reason"), (name, "Why the container is in its state."))
        for one in self._governor.standing():
            labels = (one.pod.metadata.namespace, one.pod.metadata.name, one.container)
            states.add("hami_container_priority", labels, one.priority)
            states.add("hami_container_blocked", labels, one.decision.blocked)
            states.add("hami_container_contended", labels, one.decision.contended)
            reasons.add(name, (*labels, one.decision.reason.value), 1)
        yield from states
        yield from reasons
        name = "hami_feedback_writes_total"
        writes = Families(("node", "outcome"), (name, "Changes told to containers, by outcome."))
        for outcome, count in sorted(self._governor.writes().items()):
            writes.add(name, (self._node, outcome), count)
        yield from writes
