"""Warning events on pods, written in the background."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from hamikit.cluster import ApiError, Unreachable
from hamikit.objects import Pod

log = structlog.get_logger()

MESSAGE_MAX = 1024  # the API server's limit
REMEMBERED = 10_000


class EventApi(Protocol):
    """What we need of hamikit.cluster.Api."""

    def create(self, path: str, body: Any) -> bytes:
        """POST an object."""


def _utc() -> datetime:
    return datetime.now(UTC)


class Events:
    """Writes events; what cannot be written is logged, because nobody waits for it."""

    def __init__(
        self, api: EventApi, component: str, node: str, *, now: Callable[[], datetime] = _utc
    ) -> None:
        self._api, self._now = api, now
        self._source = {"component": component, "host": node}
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="events")
        self._written: set[tuple[str, str, str]] = set()

    def warn(self, pod: Pod, reason: str, message: str, *, again: bool = False) -> None:
        """Tell something about a pod, the same text once or `again`; returns at once."""
        key = (pod.metadata.uid, reason, message)
        if key in self._written and not again:
            return
        if len(self._written) >= REMEMBERED:
            self._written.clear()
        self._written.add(key)
        log.warning("event", pod=pod.key, reason=reason, text=message)
        self._writer.submit(self._write, pod, reason, message)

    def close(self) -> None:
        """Wait for what is being written."""
        self._writer.shutdown(wait=True)

    def _write(self, pod: Pod, reason: str, message: str) -> None:
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace = pod.metadata.namespace
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{pod.metadata.name}.", "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": namespace,
                "name": pod.metadata.name,
                "uid": pod.metadata.uid,
            },
            "type": "Warning",
            "reason": reason,
            "message": message[:MESSAGE_MAX],
            "source": self._source,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        try:
            self._api.create(f"/api/v1/namespaces/{namespace}/events", body)
        except (ApiError, Unreachable) as error:
            log.warning("event not written", pod=pod.key, reason=reason, error=str(error))
