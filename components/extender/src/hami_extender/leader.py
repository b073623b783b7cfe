"""Whether our own kube-scheduler leads, so that a deposed one's extender binds nothing more.

kube-scheduler's Lease decides: leaseDuration 15 s, renewDeadline 10 s, renewed twice a second; its
holder is `<hostname>_<uuid>`, and the containers of a pod share the host name.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from hami_extender.flights import MARGIN_S, WRITE_S
from hamikit.informer import Change
from hamikit.objects import Lease

log = structlog.get_logger()

RENEW_DEADLINE_S = 10.0
"""A kube-scheduler that could not renew for this long has given up by itself."""
NOT_LEADING = "the lease names another kube-scheduler, or ours no longer renews it"
TAKING_OVER = "took over the lease, waiting for the predecessor's last write"


class Leadership:
    """What the Lease says, on our monotonic clock. Told by one thread, asked by many."""

    def __init__(
        self,
        hostname: str,
        *,
        caught_up: Callable[[], bool],
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._own = f"{hostname}_"
        self._caught_up, self._now, self._clock = caught_up, now, clock
        self._lock = threading.Lock()
        self._term, self._renew_time = ("", ""), ""
        self._renewed_at = -RENEW_DEADLINE_S
        self._taken_at: float | None = None
        self._settled = False

    def on_lease(self, change: Change[Lease]) -> None:
        """Take over a new form of the Lease."""
        spec = change.after.spec if change.after is not None else None
        holder = (spec.holder_identity if spec else None) or ""
        renewed = (spec.renew_time if spec else None) or ""
        acquired = (spec.acquire_time if spec else None) or ""
        ours = holder.startswith(self._own)
        with self._lock:
            # Another may have led in between without our seeing it: the time of taking tells.
            if (holder, acquired) != self._term:
                log.info("lease changed hands", holder=holder, ours=ours)
                self._term, self._settled = (holder, acquired), False
                self._taken_at = self._now() if ours else None
            if renewed != self._renew_time:
                self._renew_time = renewed
                # A stamp from the future (a stepped clock) counts as now; it is never later.
                age = max(self._clock() - _seconds(renewed), 0.0)
                self._renewed_at = self._now() - age

    def settled(self) -> bool:
        """Whether `missing` can be told without asking the API server."""
        with self._lock:
            return self._settled

    def missing(self) -> str:
        """Why nothing may be bound now; empty if we lead and know all that was bound before us."""
        with self._lock:
            if self._taken_at is None or self._now() >= self._renewed_at + RENEW_DEADLINE_S:
                return NOT_LEADING
            if self._settled:
                return ""
            # After an expired lease no write of the predecessor's is left. But the watch may have
            # missed (410 Gone) that it was released a moment ago: the Lease looks the same then.
            if self._now() < self._taken_at + WRITE_S + MARGIN_S:
                return TAKING_OVER
            term = self._term
        # Asks the API server, so not under the lock.
        if not self._caught_up():
            return TAKING_OVER
        with self._lock:
            self._settled = self._term == term
            return "" if self._settled else TAKING_OVER


def _seconds(stamp: str) -> float:
    """Unix seconds of an RFC 3339 time; the beginning of time if it is none."""
    try:
        return datetime.fromisoformat(stamp).astimezone(UTC).timestamp()
    except ValueError:
        return 0.0
