"""The monitor's process: puts the parts together and runs them."""

import gc
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import kubernetes
import structlog
from prometheus_client import CollectorRegistry

from hami_monitor.attribution import NO_SIGHT, Sight
from hami_monitor.auditor import AuditCollector, Auditor, Teller
from hami_monitor.collectors import MIB, BuildInfo, HostCollector, register
from hami_monitor.config import Config, load
from hami_monitor.container_metrics import ContainerCollector
from hami_monitor.evict import EvictionCollector, Evictor
from hami_monitor.governor import FeedbackCollector, Governor
from hami_monitor.holdings import Holdings
from hami_monitor.host import Host
from hami_monitor.hostpids import HostPids
from hami_monitor.legacy import with_legacy
from hami_monitor.processes import Processes
from hamikit import logs, names
from hamikit.cluster import Api
from hamikit.events import Events
from hamikit.exposition import render
from hamikit.gpu import Nvml
from hamikit.informer import READ_TIMEOUT_S, Change, Informer
from hamikit.objects import Node, Pod
from hamikit.service import Lifecycle, serve, status_app
from hamikit.truce import Truce

log = structlog.get_logger()

_GOODBYE_S: Final = 5.0
_YOUNG: Final = 20_000
"""Objects of some three looks on a full node; nearly all of them go by themselves."""
_ONCE_S: Final = 20.0
"""How long --once waits for the pods and for NVML."""


def pods_of(api: Api, node: str, on_change: Callable[[Change[Pod]], None]) -> Informer[Pod]:
    """All pods of one node, kept current: a pod that asked for nothing may use a card, too."""
    query = {"fieldSelector": f"spec.nodeName={node}"}
    return Informer(api, "/api/v1/pods", Pod, on_change, query=query)


def follow_pauses(api: Api, node: str, truce: Truce) -> None:
    """Let go of NVML whenever the node's object asks for it."""

    def on_node(change: Change[Node]) -> None:
        if change.after is not None:
            truce.observe(change.after)

    truce.connect(api, node)
    query = {"fieldSelector": f"metadata.name={node}"}
    Informer(api, "/api/v1/nodes", Node, on_node, query=query).start()


def settle() -> None:
    """What is in memory by now stays: the collector need not go through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)


def is_fresh(pods: Informer[Pod]) -> bool:
    """Whether a pod that is not known does not exist, as far as one can tell."""
    return pods.synced.is_set() and time.monotonic() - pods.last_contact < READ_TIMEOUT_S


def run(config: Config) -> int:
    """Watch, ask, serve, until a signal; with `once` print the metrics and end."""
    lifecycle = Lifecycle()
    lifecycle.stop_on_signals()
    try:
        api = Api.from_environment()
    except kubernetes.config.ConfigException as error:
        return _complain(f"no way to the Kubernetes API: {error}; set KUBECONFIG", 2)
    parts = Parts.of(config, api)
    lifecycle.ready_when("pods", parts.pods.missing)
    parts.pods.start()
    parts.host.start(lifecycle.stopping)
    if config.once:
        return _once(parts)
    feedback = parts.governor.start(lifecycle.stopping) if config.feedback else None
    try:
        serve(status_app(lifecycle, parts.registry), config.host, config.port)
    except OSError as error:
        return _complain(f"cannot listen on {config.host}:{config.port}: {error}", 1)
    log.info("serving", port=config.port)
    settle()
    lifecycle.stopping.wait()
    parts.pods.stop()
    if feedback is not None:
        # Whom it keeps waiting would wait for ever.
        parts.changed.set()
        feedback.join(_GOODBYE_S)
    log.info("stopped")
    return 0


@dataclass(frozen=True)
class Parts:
    """What the process is made of."""

    pods: Informer[Pod]
    host: Host
    governor: Governor
    changed: threading.Event
    registry: CollectorRegistry

    @classmethod
    def of(cls, config: Config, api: Api, *, proc: str = "/proc") -> "Parts":
        """Put everything together."""
        node = config.node_name
        changed = threading.Event()
        pods = pods_of(api, node, lambda _change: changed.set())
        governor = Governor(config.containers, pods.items, changed)
        evictor = Evictor(api, config.evict, dry_run=config.evict_dry_run)
        auditor = Auditor(
            pods.items,
            Processes(proc),
            Holdings(config.containers, overhead_bytes=config.audit_overhead_mib * MIB),
            listeners=(Teller(Events(api, "hami-monitor", node)), evictor),
            host_programs=config.audit_host_programs,
            told=HostPids(config.containers).tell,
            fresh=lambda: is_fresh(pods),
        )
        truce = Truce(names.NODE_MIG_PAUSE_MONITOR)
        if config.mig_pause:
            follow_pauses(api, node, truce)
        host = Host(
            Nvml(config.driver_root),
            truce=truce,
            interval_s=config.nvml_interval_s,
            deadline_s=config.nvml_deadline_s,
            watch=auditor.watch,
        )

        def sight() -> Sight:
            return auditor.sight() if host.state().up else NO_SIGHT

        told = (HostCollector(host, node), ContainerCollector(config.containers, pods.items, sight))
        registry = register(
            CollectorRegistry(),
            BuildInfo(),
            *(map(with_legacy, told) if config.legacy_metrics else told),
            AuditCollector(auditor, node, lambda: host.state().up),
            EvictionCollector(evictor, node),
            FeedbackCollector(governor, node),
        )
        return cls(pods, host, governor, changed, registry)


def _once(parts: Parts) -> int:
    if not parts.pods.synced.wait(_ONCE_S):
        return _complain(f"no {parts.pods.missing()} after {_ONCE_S:.0f} s", 1)
    # What was asked before the pods were known could not be attributed.
    parts.host.answered.clear()
    parts.host.answered.wait(_ONCE_S)
    print(render(parts.registry).decode(), end="")
    return 0


def _complain(what: str, code: int) -> int:
    print(f"hami-monitor: {what}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of `hami-monitor`."""
    config = load()
    logs.configure(config.log_level)
    log.info(
        "starting",
        version=version("hami-monitor"),
        node=config.node_name,
        containers=str(config.containers),
        driver_root=str(config.driver_root),
        listen=f"{config.host}:{config.port}",
        nvml_interval_s=config.nvml_interval_s,
        nvml_deadline_s=config.nvml_deadline_s,
    )
    raise SystemExit(run(config))


if __name__ == "__main__":
    main()
