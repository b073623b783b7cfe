"""Wires the extender together and runs it until it is asked to end."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry

from hami_extender import state
from hami_extender.access import Access
from hami_extender.app import create_app
from hami_extender.attempts import Attempts
from hami_extender.binding import Binder
from hami_extender.catchup import CatchUp
from hami_extender.config import Config
from hami_extender.events import EventSender
from hami_extender.explain import Explainer
from hami_extender.flights import Flights
from hami_extender.inquiry import create_inquiry
from hami_extender.leader import Leadership
from hami_extender.metrics import ClusterCollector, VerbMetrics
from hami_extender.nodelock import NodeLocks
from hami_extender.notices import Notices
from hami_extender.placement import Refusal
from hami_extender.question import Question
from hami_extender.selection import Policies, Refused, Selector
from hami_extender.simulate import Simulator
from hami_extender.snapshot import Snapshot
from hami_extender.survey import Survey
from hami_extender.wake import Waker
from hamikit import logs, names
from hamikit.cluster import Api
from hamikit.deviceconfig import ConfigError, load_families
from hamikit.informer import Change, Informer
from hamikit.objects import Lease, Node, Pod
from hamikit.service import Lifecycle, serve, status_app

log = structlog.get_logger()

LOOPBACK = "127.0.0.1"
"""Tokens must not cross a network in clear: kubectl port-forward and exec bring people here."""
VERB_THREADS = 64
"""kube-scheduler binds many pods at a time, and each bind waits for one write."""
API_CONNECTIONS = 64
SETTLE_EVERY_S = 1.0
STARTING = "starting, first list not complete"
DEVICE_PODS = {"labelSelector": f"{names.LABEL_DEVICE_POD}={names.LABEL_DEVICE_POD_VALUE}"}
DRAIN_S = 12.0
"""Longer than any bind waits for its outcome."""


def main() -> None:
    """Run the extender."""
    config = Config.parse(sys.argv[1:], os.environ)
    logs.configure(config.log_level)
    try:
        families = load_families(config.device_config_file, ascend=config.enable_ascend)
    except ConfigError as error:
        print(f"hami-extender: {error}", file=sys.stderr)
        sys.exit(2)
    snapshot = Snapshot(*families, lock_protocol=config.lock_protocol)
    log.info("starting", version=version("hami-extender"), config=str(config))
    lifecycle = Lifecycle()
    lifecycle.stop_on_signals()
    run(config, snapshot, Api.from_environment(connections=API_CONNECTIONS), lifecycle)


def run(config: Config, snapshot: Snapshot, api: Api, lifecycle: Lifecycle) -> None:
    """Serve until `lifecycle` stops, then let the binds under way finish."""
    registry = CollectorRegistry()
    metrics = VerbMetrics(registry, version("hami-extender"))
    registry.register(ClusterCollector(snapshot))
    flights = Flights(snapshot, api)
    locks = NodeLocks(snapshot, api, flights, expire_s=config.lock_timeout_s)

    def on_node(change: Change[Node]) -> None:
        snapshot.on_node(change)
        locks.on_node(change)

    nodes = Informer(api, "/api/v1/nodes", Node, on_node)
    pods = Informer(api, "/api/v1/pods", Pod, snapshot.on_pod, query=DEVICE_PODS)
    lifecycle.ready_when("nodes", nodes.missing)
    lifecycle.ready_when("pods", pods.missing)
    leader = _follow_lease(config, snapshot, api)

    def missing() -> str:
        if not (nodes.synced.is_set() and pods.synced.is_set()):
            return STARTING
        return leader.missing() if leader else ""

    serve(status_app(lifecycle, registry), config.status_host, config.status_port)
    works = Works(snapshot, api, flights, locks, Waker(snapshot, api), missing)
    # Until the first lists are there it answers "starting": better than a refused connection.
    _serve_scheduler(config, works, metrics)
    threads = [nodes.start()]
    # What a predecessor sent just before it died has to be in our first list of pods.
    lifecycle.stopping.wait(config.start_delay_s)
    threads.append(pods.start())
    _until_stopped(lifecycle, works, threads)
    for informer in (nodes, pods):
        informer.stop()
    log.info("stopped")


@dataclass(frozen=True, slots=True)
class Works:
    """What the verbs and the people's questions share."""

    snapshot: Snapshot
    api: Api
    flights: Flights
    locks: NodeLocks
    waker: Waker
    missing: Callable[[], str]


def _serve_scheduler(config: Config, works: Works, metrics: VerbMetrics) -> None:
    """Serve the verbs, and what people ask about them."""
    snapshot, missing = works.snapshot, works.missing
    policies = Policies(config.node_policy, config.gpu_policy, config.shortlist)
    attempts = Attempts(snapshot)
    others = (metrics.refused, works.waker.refused, attempts.refused)
    selector = Selector(snapshot, policies, missing=missing, refused=_tell(config, works, others))
    binder = Binder(
        snapshot,
        works.api,
        works.flights,
        missing=missing,
        gpu_policy=config.gpu_policy,
        tally=metrics,
        locks=works.locks,
    )
    app = create_app(selector, binder, observe=metrics.observe)
    serve(app, config.bind_host, config.bind_port, threads=VERB_THREADS)
    if config.explain_port:
        survey = Survey(snapshot, policies)
        explainer = Explainer(
            snapshot, works.api, survey, attempts, scheduler_name=config.scheduler_name
        )
        people = create_inquiry(
            explainer,
            Simulator(snapshot, survey),
            lambda: state.as_json(state.take(snapshot, works.flights, missing)),
            Access(works.api),
        )
        serve(people, LOOPBACK, config.explain_port)


def _tell(
    config: Config, works: Works, others: tuple[Refused, ...]
) -> Callable[[Pod, Question, dict[str, Refusal]], None]:
    """Tell the pod by an event, and whoever else wants to know, that no node fits."""
    events = EventSender(works.api)
    notices = Notices(works.snapshot, events.send, component=config.scheduler_name)
    events.start()

    def refused(pod: Pod, question: Question, refusals: dict[str, Refusal]) -> None:
        for tell in (notices.refused, *others):
            tell(pod, question, refusals)

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


def _until_stopped(lifecycle: Lifecycle, works: Works, threads: list[threading.Thread]) -> None:
    while not lifecycle.stopping.wait(SETTLE_EVERY_S):
        works.flights.settle()
        works.locks.look()
        works.waker.look()
        if not all(thread.is_alive() for thread in threads):
            # A view that stands still would promise cards by an old account: start afresh.
            sys.exit("hami-extender: a watch ended by an error, see the log above; restarting")
    deadline = time.monotonic() + DRAIN_S
    while works.flights.sending() and time.monotonic() < deadline:
        time.sleep(0.05)


if __name__ == "__main__":
    main()
