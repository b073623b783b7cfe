"""HAMi's node lock: one pod at a time between its bind and the plugin's Allocate (HAMi v2.10)."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import structlog

from hami_extender.flights import Flights, Refused, pod_path
from hami_extender.snapshot import Snapshot
from hamikit import names
from hamikit.cluster import ApiError, Unreachable
from hamikit.informer import Change
from hamikit.objects import Node, Pod

log = structlog.get_logger()

T = TypeVar("T")
WAIT_S = 10.0
"""How long a bind waits for its turn; with the Binding and its outcome it stays below 30 s."""
LOOK_S = 1.0
"""A waiting bind looks this often whether the owner is gone, which no node event tells."""
UNBOUND_S = 30.0
"""kube-scheduler waits no longer for a bind: a lock whose pod is not bound by then is left over."""
WAITERS = 32
"""Half of the verbs' threads: filter must always find one."""
TRIES = 5
OVER = (names.BIND_SUCCESS, names.BIND_FAILED)


class LockApi(Protocol):
    """What we need of the API server."""

    def get(self, path: str, kind: type[T]) -> T:
        """Read an object; raises ApiError, Unreachable."""

    def patch(self, path: str, body: Any) -> bytes:
        """JSON merge patch; raises ApiError, Unreachable."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A lock as the watch shows it, and since when."""

    value: str
    since: float


class NodeLocks:
    """Takes and releases the locks of nodes; `expire_s` ends a lock that nobody releases."""

    def __init__(
        self,
        snapshot: Snapshot,
        api: LockApi,
        flights: Flights,
        *,
        expire_s: float,
        look_s: float = LOOK_S,
        now: Callable[[], float] = time.monotonic,
        utcnow: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._snapshot, self._api, self._flights = snapshot, api, flights
        self._expire_s, self._look_s, self._now, self._utcnow = expire_s, look_s, now, utcnow
        self._changed = threading.Condition()
        self._seen: dict[str, Seen] = {}
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._writing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._waiters = threading.Semaphore(WAITERS)
        self.waiting = 0
        """Binds that wait for a lock or are taking it."""
        self._taken: dict[str, Pod] = {}

    def on_node(self, change: Change[Node]) -> None:
        """Take over a node's lock from the watch."""
        name = change.present.metadata.name
        value = change.after.metadata.annotations.get(names.NODE_LOCK) if change.after else None
        with self._changed:
            self._note(name, value)
            if change.after is None:
                self._turns.pop(name, None)
                self._writing.pop(name, None)

    def take(self, node: str, pod: Pod) -> None:
        """Lock the node for the pod, after whoever has it.

        Raises:
            Refused: it is still another's, or the API server did not take it.
        """
        if not self._waiters.acquire(blocking=False):
            raise Refused(f"{node}: too many pods wait for node locks, retrying")
        with self._changed:
            self.waiting += 1
        try:
            self._take(node, pod, self._now() + WAIT_S)
        except (ApiError, Unreachable) as error:
            raise Refused(f"lock of node {node}: {error}") from error
        finally:
            with self._changed:
                self.waiting -= 1
            self._waiters.release()

    def _take(self, node: str, pod: Pod, deadline: float) -> None:
        with self._changed:
            turn = self._turns[node]
        if not turn.acquire(timeout=max(deadline - self._now(), 0.0)):
            raise Refused(f"{node}: other pods wait for its lock: node lock contention")
        try:
            while (left := self._try_alone(node, pod)) is not None:
                if self._now() >= deadline:
                    raise Refused(f"{node} is locked ({left}): node lock contention")
                self._wait(node, left)
        finally:
            turn.release()

    def _wait(self, node: str, value: str) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: node not in self._seen or self._seen[node].value != value, self._look_s
            )

    def _alone(self, node: str) -> threading.Lock:
        """Held from the read of a node to its write, lest one bind's end undo the next's begin."""
        with self._changed:
            return self._writing[node]

    def _try_alone(self, node: str, pod: Pod) -> str | None:
        with self._alone(node):
            return self._try(node, pod)

    def _try(self, node: str, pod: Pod) -> str | None:
        """One look and, if it is free or left over, one write that nobody can come between.

        Returns the lock that stands in the way; None when the node is ours.
        """
        found = self._api.get(f"/api/v1/nodes/{node}", Node)
        value = found.metadata.annotations.get(names.NODE_LOCK)
        if value is not None and not is_of(value, pod):
            if not self._left_over(node, value):
                return value
            log.warning("lock taken over", node=node, left=value, pod=pod.key)
        stamp = self._utcnow().strftime("%Y-%m-%dT%H:%M:%SZ")
        mine = f"{stamp},{pod.metadata.namespace},{pod.metadata.name}"
        with self._changed:
            # Before the write, whose answer may get lost.
            self._taken[node] = pod
        return None if self._write(found, mine) else value or ""

    def _left_over(self, node: str, value: str) -> bool:
        """Whether the lock's owner needs it no more."""
        with self._changed:
            age = self._now() - self._note(node, value)
        # The age is by our own watch: clocks of writers differ, and step.
        if age > self._expire_s:
            return True
        key = owner(value)
        if key is None:
            return False
        try:
            pod = self._api.get(f"/api/v1/namespaces/{key[0]}/pods/{key[1]}", Pod)
        except ApiError as error:
            if error.status == 404:
                return True
            raise
        if pod.terminal or pod.metadata.annotations.get(names.POD_BIND_PHASE) in OVER:
            return True
        if not pod.spec.node_name:
            return age > UNBOUND_S and not self._under_way(pod)
        return pod.spec.node_name != node

    def _under_way(self, pod: Pod) -> bool:
        with self._snapshot.lock:
            return self._flights.get(pod.metadata.uid) is not None

    def release(self, node: str, pod: Pod) -> None:
        """Take the lock off if it is this pod's and needed no more; `look` tries again."""
        try:
            for _ in range(TRIES):
                with self._alone(node):
                    if self._let_go(node, pod):
                        return
        except ApiError as error:
            if error.status == 404:
                self._forget(node, pod)
                return
            log.warning("lock not released", node=node, pod=pod.key, error=str(error))
        except Unreachable as error:
            log.warning("lock not released", node=node, pod=pod.key, error=str(error))

    def _let_go(self, node: str, pod: Pod) -> bool:
        """Whether nothing is left to do: a second bind, or a pod of the same name, may have it."""
        with self._changed:
            taken = self._taken.get(node)
        if taken is None or taken.metadata.uid != pod.metadata.uid or not self._over(node, pod):
            return True
        found = self._api.get(f"/api/v1/nodes/{node}", Node)
        value = found.metadata.annotations.get(names.NODE_LOCK)
        if value is None or not is_of(value, pod) or self._write(found, None):
            self._forget(node, pod)
            return True
        return False

    def look(self) -> None:
        """Release our locks whose pods need them no more; to be called about once a second."""
        with self._changed:
            taken = list(self._taken.items())
        for node, pod in taken:
            self.release(node, pod)

    def label(self, pod: Pod, node: str) -> None:
        """Name the node in a label, which HAMi's monitor selects by.

        Raises:
            Refused: the API server did not take it.
        """
        # A label's value has at most 63 characters; the annotation has the full name.
        if len(node) > 63:
            return
        metadata = {"uid": pod.metadata.uid, "labels": {names.POD_NODE: node}}
        try:
            self._api.patch(pod_path(pod), {"metadata": metadata})
        except (ApiError, Unreachable) as error:
            raise Refused(f"label of pod {pod.key}: {error}") from error

    def _over(self, node: str, pod: Pod) -> bool:
        uid = pod.metadata.uid
        with self._snapshot.lock:
            now = self._snapshot.pods.get(uid)
            if self._flights.get(uid) is not None:
                return False
        return (
            now is None
            or now.spec.node_name != node
            or now.metadata.annotations.get(names.POD_BIND_PHASE) in OVER
        )

    def _write(self, node: Node, value: str | None) -> bool:
        """Set or remove the lock, unless the node has changed since it was read."""
        metadata = {
            "resourceVersion": node.metadata.resource_version,
            "annotations": {names.NODE_LOCK: value},
        }
        try:
            self._api.patch(f"/api/v1/nodes/{node.metadata.name}", {"metadata": metadata})
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        return True

    def _note(self, node: str, value: str | None) -> float:
        """Remember a lock's present value; returns since when it stands. `_changed` is held."""
        seen = self._seen.get(node)
        if value is None:
            self._seen.pop(node, None)
            self._changed.notify_all()
            return self._now()
        if seen is None or seen.value != value:
            seen = self._seen[node] = Seen(value, self._now())
            self._changed.notify_all()
        return seen.since

    def _forget(self, node: str, pod: Pod) -> None:
        with self._changed:
            taken = self._taken.get(node)
            if taken is not None and taken.metadata.uid == pod.metadata.uid:
                del self._taken[node]


def owner(value: str) -> tuple[str, str] | None:
    """Namespace and name of the pod that a lock names; None for HAMi's old form, and for junk."""
    parts = value.split(",")
    if len(parts) != 3 or not all(parts):
        return None
    return parts[1], parts[2]


def is_of(value: str, pod: Pod) -> bool:
    """Whether a lock is this pod's."""
    return owner(value) == (pod.metadata.namespace, pod.metadata.name)
