"""Sends events from a thread of its own, so that no verb waits for them."""

import queue
import threading
from typing import Any, Protocol

import structlog

from hamikit.cluster import ApiError, Unreachable

log = structlog.get_logger()

WAITING = 1000


class CreateApi(Protocol):
    """What we need of the API server."""

    def create(self, path: str, body: Any) -> bytes:
        """Create an object; raises ApiError, Unreachable."""


class EventSender:
    """A bounded queue of events; what does not fit or does not arrive is dropped and counted."""

    def __init__(self, api: CreateApi, *, waiting: int = WAITING) -> None:
        self._api = api
        self._queue: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue(waiting)
        self.dropped = 0

    def send(self, namespace: str, event: dict[str, Any]) -> None:
        """Queue an event; never waits."""
        try:
            self._queue.put_nowait((namespace, event))
        except queue.Full:
            self.dropped += 1

    def start(self) -> None:
        """Send in the background until the process ends."""
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.step()

    def step(self, timeout: float | None = None) -> None:
        """Send the next event; raises queue.Empty if there is none within `timeout` seconds."""
        namespace, event = self._queue.get(timeout=timeout)
        try:
            self._api.create(f"/api/v1/namespaces/{namespace}/events", event)
        except (ApiError, Unreachable) as error:
            self.dropped += 1
            log.warning("event lost", namespace=namespace, error=str(error))
