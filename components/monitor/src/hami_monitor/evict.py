"""Evicts pods that take more than they were granted: few, slowly, and only where told to."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from hami_monitor.audit import Finding, Kind
from hami_monitor.gauges import Families
from hami_monitor.tracker import News
from hamikit.cluster import ApiError, Unreachable
from hamikit.objects import Pod

log = structlog.get_logger()

PAUSE_S: Final = 60.0
"""At least this long lies between two evictions on a node, and before the first."""
_BUDGET: Final = 429
"""What the API server answers where a PodDisruptionBudget forbids."""


class EvictionApi(Protocol):
    """What we need of hamikit.cluster.Api."""

    def create(self, path: str, body: Any) -> bytes:
        """POST an object; raises ApiError, Unreachable."""


class Evictor:
    """Asks the API server to evict the pod of a finding, if its kind is one of `kinds`.

    The eviction API respects PodDisruptionBudgets; `dry_run` asks without consequence.
    """

    def __init__(
        self,
        api: EvictionApi,
        kinds: Collection[Kind],
        *,
        dry_run: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._kinds, self._dry_run, self._now = api, frozenset(kinds), dry_run, now
        # Counted from our own start, so that a monitor that crashes evicts no faster.
        self._last = now()
        self._asking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evict")
        self._lock = threading.Lock()
        self._outcomes: Counter[tuple[str, str]] = Counter()

    def hear(self, news: News, pods: Mapping[str, Pod]) -> None:
        """Evict one pod of a standing finding, in the background; not so soon after the last."""
        if self._now() - self._last < PAUSE_S:
            return
        for finding in news.standing:
            pod = pods.get(finding.place.pod_uid)
            if finding.place.kind not in self._kinds or pod is None:
                continue
            if pod.metadata.deletion_timestamp is None:
                self._last = self._now()
                self._asking.submit(self._evict, finding, pod)
                return

    def close(self) -> None:
        """Wait for what is being asked."""
        self._asking.shutdown(wait=True)

    def outcomes(self) -> dict[tuple[str, str], int]:
        """How often, by (kind, outcome): evicted, dry_run, refused, failed."""
        with self._lock:
            return dict(self._outcomes)

    def _evict(self, finding: Finding, pod: Pod) -> None:
        options: dict[str, Any] = {"preconditions": {"uid": pod.metadata.uid}}
        if self._dry_run:
            options["dryRun"] = ["All"]
        name, namespace = pod.metadata.name, pod.metadata.namespace
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": options,
        }
        outcome = "dry_run" if self._dry_run else "evicted"
        try:
            self._api.create(f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body)
            log.warning("eviction", pod=pod.key, outcome=outcome, text=finding.text)
        except ApiError as error:
            outcome = "refused" if error.status == _BUDGET else "failed"
            log.warning("eviction", pod=pod.key, outcome=outcome, error=str(error))
        except Unreachable as error:
            outcome = "failed"
            log.warning("eviction", pod=pod.key, outcome=outcome, error=str(error))
        self._count(finding.place.kind, outcome)

    def _count(self, kind: Kind, outcome: str) -> None:
        with self._lock:
            self._outcomes[kind.value, outcome] += 1


class EvictionCollector(Collector):
    """How evictions fared."""

    def __init__(self, evictor: Evictor, node: str) -> None:
        self._evictor, self._node = evictor, node

    def collect(self) -> Iterator[Metric]:
        """One series by kind and outcome that there has been."""
        name = "hami_audit_evictions_total"
        text = "Evictions asked for, by finding and outcome."
        families = Families(("node", "kind", "outcome"), (name, text))
        for (kind, outcome), count in sorted(self._evictor.outcomes().items()):
            families.add(name, (self._node, kind, outcome), count)
        yield from families
