"""What the server wants from the API server, and can do without: quotas, and a place for events."""

import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from hami_webhook.config import ServeConfig
from hamikit.quotas import Quotas, ResourceQuota

log = structlog.get_logger()

REASON_REFUSED = "DeviceConfigRefused"
REASON_LOADED = "DeviceConfigLoaded"
_LONGEST = 1000  # of an event's message, in characters (validation of core/v1 Event: 1024)


class Creates(Protocol):
    """Who makes objects."""

    def create(self, path: str, body: Any) -> bytes:
        """POST an object."""


class Announcer:
    """Tells on the ConfigMap what became of its change; never waits for the API server."""

    def __init__(
        self, config: ServeConfig, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._config, self._now = config, now
        self._texts: queue.Queue[str] = queue.Queue(maxsize=16)

    def report(self, fault: str) -> None:
        """Take a note of a fault, or of its end when the text is empty."""
        try:
            self._texts.put_nowait(fault)
        except queue.Full:
            log.warning("event dropped", reason="too many are waiting")

    def send(self, api: Creates, timeout: float | None = None) -> None:
        """Send the next one; raises queue.Empty when there is none within `timeout` seconds."""
        fault = self._texts.get(timeout=timeout)
        namespace = self._config.namespace
        api.create(f"/api/v1/namespaces/{namespace}/events", self._event(namespace, fault))

    def _event(self, namespace: str, fault: str) -> dict[str, Any]:
        moment = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        name = self._config.device_config_map
        text = f"hami-webhook goes on with the last good configuration: {fault}"
        return {
            "metadata": {"generateName": f"{name}-", "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "namespace": namespace,
                "name": name,
            },
            "reason": REASON_REFUSED if fault else REASON_LOADED,
            "message": text[:_LONGEST] if fault else "hami-webhook uses the new configuration",
            "type": "Warning" if fault else "Normal",
            "source": {"component": "hami-webhook"},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }


def start(announcer: Announcer, quotas: Quotas) -> threading.Thread:
    """Watch quotas and send events in threads of their own until the process ends."""
    thread = threading.Thread(target=_run, args=(announcer, quotas), name="cluster", daemon=True)
    thread.start()
    return thread


def _run(announcer: Announcer, quotas: Quotas) -> None:
    # The client takes a second to import; admissions are answered meanwhile.
    from kubernetes.config import ConfigException  # noqa: PLC0415

    from hamikit.cluster import Api, ApiError, Unreachable  # noqa: PLC0415
    from hamikit.informer import Informer  # noqa: PLC0415

    try:
        api = Api.from_environment()
    except ConfigException as error:
        log.warning("no API server: quotas are left to the extender", error=str(error))
        return
    Informer(api, "/api/v1/resourcequotas", ResourceQuota, quotas.on_change).start()
    while True:
        try:
            announcer.send(api)
        except (ApiError, Unreachable) as error:
            log.warning("event lost", error=str(error))
