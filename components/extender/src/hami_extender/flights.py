"""Binds under way: each is followed until it is known whether its one write happened."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import msgspec
import structlog

from hami_extender.selection import IN_FLIGHT
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hamikit.cluster import ApiError, Unreachable
from hamikit.objects import Pod

log = structlog.get_logger()

WRITE_S = 3
"""The server ends a Binding after this long: what is not written by then never will be."""
MARGIN_S = 1.0
"""For a commit that was under way when the server's time ran out."""
SETTLE_S = 8.0
"""How long a bind waits for its outcome before it answers; kube-scheduler waits 30 s."""
CONFIRM_S = 30.0
"""A written bind that the watch has not shown for this long is read."""
POLL_S = 0.25


class ReadApi(Protocol):
    """What we need of the API server."""

    def get(self, path: str, kind: type[Pod]) -> Pod:
        """Read an object, as the quorum has it; raises ApiError, Unreachable."""


class Refused(Exception):
    """The bind cannot be done; the text goes to kube-scheduler, which tries again."""


class Outcome(Enum):
    """What is known of a write."""

    SENDING = "sending"
    """Its handler is still at it."""
    WRITTEN = "written"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Flight:
    """One bind under way.

    From `final_at` on a Binding that is not written never will be; `check_at` is when to look.
    """

    pod: Pod
    node: str
    outcome: Outcome = Outcome.SENDING
    final_at: float = 0.0
    check_at: float = 0.0


def pod_path(pod: Pod) -> str:
    """The pod in the API."""
    return f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}"


class Flights:
    """All binds under way, by pod UID; guarded by the snapshot's lock."""

    def __init__(
        self,
        snapshot: Snapshot,
        api: ReadApi,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._snapshot, self._api, self._now, self._sleep = snapshot, api, now, sleep
        self._flights: dict[str, Flight] = {}
        self._left = threading.Condition(snapshot.lock)

    def get(self, uid: str) -> Flight | None:
        """The pod's bind under way. The lock is held."""
        return self._flights.get(uid)

    def start(self, pod: Pod, node: str) -> Flight:
        """Follow a bind from now on. The lock is held."""
        flight = self._flights[pod.metadata.uid] = Flight(pod, node)
        return flight

    def written(self, flight: Flight) -> None:
        """The server said yes; from here the watch tells the rest."""
        with self._snapshot.lock:
            flight.outcome = Outcome.WRITTEN
            flight.check_at = self._now() + CONFIRM_S

    def failed(self, flight: Flight) -> None:
        """The write did not happen and will not."""
        uid = flight.pod.metadata.uid
        with self._snapshot.lock:
            if self._flights.get(uid) is flight:
                del self._flights[uid]
                held = self._snapshot.ledger.holdings.get(uid)
                # The watch may have shown a grant in the meantime; that one is not ours to undo.
                if held is not None and held.kind is Kind.FLIGHT:
                    self._snapshot.ledger.release(uid)

    def unanswered(self, flight: Flight, why: str) -> None:
        """No answer: the Binding may be written, or still be until the server's time ends.

        Raises:
            Refused: it is known not to be, or nothing is known within SETTLE_S.
        """
        log.warning("bind outcome unknown; the pod is read", pod=flight.pod.key, error=why)
        flight.final_at = self._now() + WRITE_S + MARGIN_S
        self.find_out(flight, why)

    def find_out(self, flight: Flight, why: str) -> None:
        """Read the pod until its state is final; what stays open is left to `settle`.

        Raises:
            Refused: the pod is not bound as asked, or nothing is known within SETTLE_S.
        """
        give_up = self._now() + SETTLE_S
        while not self._settled(flight):
            if self._now() >= give_up:
                raise Refused(f"{IN_FLIGHT}: {why}")
            self._sleep(POLL_S)

    def leave(self, flight: Flight) -> None:
        """The handler is done; whatever happened there, `settle` finds out what is still open."""
        with self._snapshot.lock:
            if flight.outcome is Outcome.SENDING:
                flight.outcome = Outcome.UNKNOWN
                flight.final_at = flight.final_at or self._now() + WRITE_S + MARGIN_S
            self._left.notify_all()

    def _settled(self, flight: Flight) -> bool:
        """Whether the pod is known to be bound as asked; Refused if it is known not to be."""
        asked_at = self._now()
        flight.check_at = asked_at + POLL_S
        pod = self._read(flight)
        if pod is None:
            return False
        if pod.metadata.uid != flight.pod.metadata.uid or pod.terminal:
            self.failed(flight)
            raise Refused(f"pod {flight.pod.key} is gone")
        if pod.spec.node_name:
            return self._bound(flight, pod)
        if asked_at < flight.final_at:
            return False
        self.failed(flight)
        raise Refused(f"binding of {flight.pod.key} was not written, retrying")

    def _read(self, flight: Flight) -> Pod | None:
        """The pod as it is; without uid if it is gone, None if nobody can say."""
        try:
            return self._api.get(pod_path(flight.pod), Pod)
        except ApiError as error:
            return Pod() if error.status == 404 else None
        except (Unreachable, msgspec.MsgspecError):
            return None

    def _bound(self, flight: Flight, pod: Pod) -> bool:
        """The pod is bound: count what it really has until the watch shows it."""
        with self._snapshot.lock:
            held = self._snapshot.ledger.holdings.get(pod.metadata.uid)
            granted = held is not None
            if held is not None and held.kind is Kind.FLIGHT:
                granted = self._snapshot.recount(pod)
            self.written(flight)
        if pod.spec.node_name == flight.node and granted:
            return True
        raise Refused(f"pod {flight.pod.key} is bound to {pod.spec.node_name} already")

    def settle(self) -> None:
        """Look once at every flight whose outcome is due; call it about once a second."""
        now = self._now()
        with self._snapshot.lock:
            self._land()
            due = [
                flight
                for flight in self._flights.values()
                if flight.outcome is not Outcome.SENDING and flight.check_at <= now
            ]
        for flight in due:
            try:
                if self._settled(flight):
                    log.info("bind settled", pod=flight.pod.key, node=flight.node)
            except Refused as error:
                log.info("bind settled", pod=flight.pod.key, node=flight.node, error=str(error))

    def under_way(self) -> dict[str, str]:
        """What is known of each bind, by pod UID. The lock is held."""
        return {uid: flight.outcome.value for uid, flight in self._flights.items()}

    def sending(self) -> bool:
        """Whether a bind still waits for its answer."""
        with self._snapshot.lock:
            return any(flight.outcome is Outcome.SENDING for flight in self._flights.values())

    def wait_sent(self, seconds: float) -> bool:
        """Until no bind waits for its answer; False when the time is over."""
        with self._left:
            return self._left.wait_for(lambda: not self.sending(), seconds)

    def _land(self) -> None:
        """Forget flights that the watch has ended."""
        holdings = self._snapshot.ledger.holdings
        for uid, flight in list(self._flights.items()):
            held = holdings.get(uid)
            in_flight = held is not None and held.kind is Kind.FLIGHT
            if flight.outcome is not Outcome.SENDING and not in_flight:
                del self._flights[uid]
