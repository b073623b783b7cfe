"""Sends events from a thread of its own, so that no verb waits for them."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from hamikit.cluster import ApiError, Unreachable

log = structlog.get_logger()

WAITING = 1000
PAUSES_S = (0.5, 2.0, 8.0)
"""Between tries: a pod is told a reason once, so a moment without API server must not lose it."""
HTTP_BUSY, HTTP_FAULT = 429, 500


class CreateApi(Protocol):
    """What we need of the API server."""

    def create(self, path: str, body: Any) -> bytes:
        """Create an object; raises ApiError, Unreachable."""


class EventSender:
    """A bounded queue of events; what does not fit or does not arrive is dropped and counted."""

    def __init__(
        self, api: CreateApi, *, waiting: int = WAITING, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._api, self._pause = api, pause
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
        path = f"/api/v1/namespaces/{namespace}/events"
        for pause_s in (*PAUSES_S, None):
            try:
                self._api.create(path, event)
            except (ApiError, Unreachable) as error:
                if pause_s is None or not _passes(error):
                    self.dropped += 1
                    log.warning("event lost", namespace=namespace, error=str(error))
                    return
                self._pause(pause_s)
            else:
                return


def _passes(error: ApiError | Unreachable) -> bool:
    """Whether the API server may take the same event in a moment."""
    return isinstance(error, Unreachable) or error.status == HTTP_BUSY or error.status >= HTTP_FAULT
