"""Wakes pods that were refused on a view which, unknown to us, was already out of date.

kube-scheduler hears of a freed device from its own watch and asks again at once, sometimes a
millisecond before our watch tells us. It then parks the pod, and nothing more happens for up to
five minutes. So whoever would fit now and was not asked about again for a while gets a condition
in its status: any change of a pod makes kube-scheduler look at it again (1.32 and later; before,
its own flush after five minutes does).
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from hami_extender.placement import Refusal
from hami_extender.question import Question
from hami_extender.snapshot import Snapshot
from hamikit.cluster import ApiError, Unreachable
from hamikit.objects import Pod

log = structlog.get_logger()

CONDITION = "hami.io/RoomFreed"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
GRACE_S = 1.0
"""kube-scheduler comes by itself within milliseconds, unless it came too early."""
PODS_KEPT = 4096
WOKEN_AT_ONCE = 16
"""One look wakes no more: each that is placed takes room from the next."""


class PatchApi(Protocol):
    """What we need of the API server."""

    def request(self, method: str, path: str, *, body: Any, content_type: str) -> bytes:
        """Send a request; raises ApiError, Unreachable."""


@dataclass(slots=True)
class Waiting:
    """A refused pod; `fits_since` is when we first saw room for it, None while there is none."""

    pod: Pod
    question: Question
    budget: int
    fits_since: float | None = None


class Waker:
    """Remembers refused pods; `look` is to be called about once a second."""

    def __init__(
        self,
        snapshot: Snapshot,
        api: PatchApi,
        *,
        now: Callable[[], float] = time.monotonic,
        utcnow: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._snapshot, self._api = snapshot, api
        self._now, self._utcnow = now, utcnow
        self._waiting: OrderedDict[str, Waiting] = OrderedDict()
        self._seen = 0

    def refused(self, pod: Pod, question: Question, _refusals: dict[str, Refusal]) -> None:
        """No node fits this pod as far as we know now. The snapshot's lock is held."""
        self._waiting[pod.metadata.uid] = Waiting(
            pod, question, self._snapshot.budget.version(pod.metadata.namespace)
        )
        self._waiting.move_to_end(pod.metadata.uid)
        if len(self._waiting) > PODS_KEPT:
            self._waiting.popitem(last=False)

    def look(self) -> None:
        """Wake whoever has had room for a while without being asked about."""
        with self._snapshot.lock:
            overlooked = self._overlooked()
        for waiting in overlooked:
            self._wake(waiting.pod)

    def _overlooked(self) -> list[Waiting]:
        snapshot, now = self._snapshot, self._now()
        # A claim that nobody redeemed may be all that stands in the way.
        snapshot.expire_claims()
        journal, nodes = snapshot.ledger.journal, snapshot.ledger.nodes
        told = journal.since(self._seen)
        self._seen = journal.position
        changed = nodes.keys() if told is None else told
        fits_any = snapshot.verdicts.fits_any
        found: list[Waiting] = []
        for uid, waiting in list(self._waiting.items()):
            if uid not in snapshot.pods or uid in snapshot.ledger.holdings:
                del self._waiting[uid]
            elif waiting.fits_since is None:
                asked = nodes.keys() if self._budget_moved(waiting) else changed
                waiting.fits_since = now if fits_any(waiting.question, asked) else None
            elif now - waiting.fits_since >= GRACE_S and len(found) < WOKEN_AT_ONCE:
                # Once for each change: a pod that kube-scheduler's own rules keep out stays out.
                waiting.fits_since = None
                found.append(waiting)
        return found

    def _budget_moved(self, waiting: Waiting) -> bool:
        """Take over what the namespace's quota leaves now; whether that may have changed."""
        version = self._snapshot.budget.version(waiting.pod.metadata.namespace)
        if version == waiting.budget:
            return False
        waiting.budget = version
        waiting.question = self._snapshot.limited(waiting.question, waiting.pod)
        return True

    def _wake(self, pod: Pod) -> None:
        meta, stamp = pod.metadata, self._utcnow().strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": CONDITION,
            "status": "True",
            "reason": "AskedTooEarly",
            "message": "a node has room for this pod's devices; asked kube-scheduler to look again",
            "lastProbeTime": stamp,
            "lastTransitionTime": stamp,
        }
        body = {"metadata": {"uid": meta.uid}, "status": {"conditions": [condition]}}
        path = f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}/status"
        try:
            self._api.request("PATCH", path, body=body, content_type=STRATEGIC_MERGE)
        except (ApiError, Unreachable) as error:
            log.warning(
                "waiting pod not woken; its turn comes again", pod=pod.key, error=str(error)
            )
        else:
            log.info("waiting pod woken", pod=pod.key)
