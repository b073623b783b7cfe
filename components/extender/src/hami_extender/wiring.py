"""The extender's parts, put together."""

import socket
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from hami_extender import state
from hami_extender.access import Access
from hami_extender.app import App, create_app
from hami_extender.attempts import Attempts
from hami_extender.binding import Binder
from hami_extender.catchup import CatchUp
from hami_extender.config import Config
from hami_extender.events import EventSender
from hami_extender.explain import Explainer
from hami_extender.flights import Flights
from hami_extender.gauges import OwnCollector
from hami_extender.inquiry import create_inquiry
from hami_extender.leader import Leadership
from hami_extender.legacy import FORMER, instances
from hami_extender.metrics import ClusterCollector, VerbMetrics
from hami_extender.nodelock import NodeLocks
from hami_extender.notices import Notices
from hami_extender.overview import Overviews
from hami_extender.placement import Refusal
from hami_extender.preempt import Preemptor
from hami_extender.question import Question
from hami_extender.selection import Policies, Selector
from hami_extender.simulate import Simulator
from hami_extender.snapshot import Snapshot
from hami_extender.survey import Survey
from hami_extender.wake import Waker
from hamikit import names
from hamikit.cluster import Api
from hamikit.informer import Change, Informer
from hamikit.legacy import WithLegacy
from hamikit.objects import Lease, Node, Pod
from hamikit.quotas import ResourceQuota

DECIDING = ("/filter", "/prioritize")
"""The verbs that only think."""
STARTING = "starting, first list not complete"
DEVICE_PODS = {"labelSelector": f"{names.LABEL_DEVICE_POD}={names.LABEL_DEVICE_POD_VALUE}"}


class Parts:
    """All parts of one extender; nothing runs yet but what follows the lease and sends events."""

    def __init__(
        self,
        config: Config,
        snapshot: Snapshot,
        api: Api,
        registry: CollectorRegistry,
        *,
        build: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._snapshot, self._api = config, snapshot, api
        self._metrics = VerbMetrics(registry, build)
        view = ClusterCollector(snapshot)
        registry.register(WithLegacy(view, FORMER, instances) if config.legacy_metrics else view)
        self.flights = Flights(snapshot, api, now=now)
        self._locks = NodeLocks(
            snapshot, api, self.flights, expire_s=config.lock_timeout_s, now=now
        )
        self._waker = Waker(snapshot, api, now=now)
        self._attempts = Attempts(snapshot, now=now)
        self._policies = Policies(config.node_policy, config.gpu_policy, config.shortlist)
        self._preemptor = Preemptor(snapshot, config.gpu_policy, missing=self.missing)
        self.nodes = Informer(api, "/api/v1/nodes", Node, self._on_node)
        self.quotas = Informer(api, "/api/v1/resourcequotas", ResourceQuota, snapshot.on_quota)
        self.pods = Informer(
            api, "/api/v1/pods", Pod, self._on_pod, query=DEVICE_PODS, keep=snapshot.kept
        )
        registry.register(OwnCollector(snapshot, self.flights, self._locks, self.informers))
        self._leader = _follow_lease(config, snapshot, api)

    @property
    def informers(self) -> dict[str, Informer[Any]]:
        """What has to be complete, and stay current, by name."""
        return {"nodes": self.nodes, "quotas": self.quotas, "pods": self.pods}

    def missing(self) -> str:
        """What is missing until we may place pods; empty when nothing is."""
        if not all(informer.synced.is_set() for informer in self.informers.values()):
            return STARTING
        return self._leader.missing() if self._leader else ""

    def at_once(self, path: str) -> bool:
        """Whether a verb can be answered without waiting for anything but the snapshot's lock."""
        return path in DECIDING and (self._leader is None or self._leader.settled())

    def look(self) -> None:
        """Do what is due; to be called about once a second."""
        self.flights.settle()
        self._locks.look()
        self._waker.look()

    def verbs(self) -> App:
        """The application for kube-scheduler."""
        selector = Selector(
            self._snapshot, self._policies, missing=self.missing, refused=self._refused()
        )
        binder = Binder(
            self._snapshot,
            self._api,
            self.flights,
            missing=self.missing,
            gpu_policy=self._config.gpu_policy,
            tally=self._metrics,
            locks=self._locks,
        )
        return create_app(selector, binder, self._preemptor, observe=self._metrics.observe)

    def inquiry(self) -> App:
        """The application for people."""
        survey = Survey(self._snapshot, self._policies)
        explainer = Explainer(
            self._snapshot,
            self._api,
            survey,
            self._attempts,
            scheduler_name=self._config.scheduler_name,
        )
        return create_inquiry(
            explainer,
            Simulator(self._snapshot, survey),
            lambda: state.as_json(state.take(self._snapshot, self.flights, self.missing)),
            Overviews(self._snapshot, explainer, self.missing),
            Access(self._api),
        )

    def _on_node(self, change: Change[Node]) -> None:
        self._snapshot.on_node(change)
        self._locks.on_node(change)

    def _on_pod(self, change: Change[Pod]) -> None:
        self._snapshot.on_pod(change)
        self._preemptor.on_pod(change)

    def _refused(self) -> Callable[[Pod, Question, dict[str, Refusal]], None]:
        """Tell the pod by an event, and whoever else wants to know, that no node fits."""
        events = EventSender(self._api)
        notices = Notices(self._snapshot, events.send, component=self._config.scheduler_name)
        events.start()
        listeners = (notices, self._metrics, self._waker, self._attempts, self._preemptor)

        def refused(pod: Pod, question: Question, refusals: dict[str, Refusal]) -> None:
            for listener in listeners:
                listener.refused(pod, question, refusals)

        return refused


def _follow_lease(config: Config, snapshot: Snapshot, api: Api) -> Leadership | None:
    """Watch kube-scheduler's lease, where we are to bind only while it is ours."""
    if not config.leader_elect:
        return None
    leader = Leadership(
        socket.gethostname(), caught_up=CatchUp(snapshot, api, {**DEVICE_PODS}).done
    )
    path = f"/apis/coordination.k8s.io/v1/namespaces/{config.lease_namespace}/leases"
    query = {"fieldSelector": f"metadata.name={config.lease_name}"}
    Informer(api, path, Lease, leader.on_lease, query=query).start()
    return leader
