"""The monitor's process: puts the parts together and runs them."""

import sys
from importlib.metadata import version
from typing import Final

import kubernetes
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from hami_monitor.collectors import BuildInfo, ContainerCollector, HostCollector, register
from hami_monitor.config import Config, load
from hami_monitor.host import Host
from hamikit import logs, names
from hamikit.cluster import Api
from hamikit.gpu import Nvml
from hamikit.informer import Informer
from hamikit.objects import Pod
from hamikit.service import Lifecycle, serve, status_app

log = structlog.get_logger()

_ONCE_S: Final = 20.0
"""How long --once waits for the pods and for NVML."""


def pods_of(api: Api, node: str) -> Informer[Pod]:
    """The device pods of one node, kept current."""
    query = {
        "labelSelector": f"{names.LABEL_DEVICE_POD}={names.LABEL_DEVICE_POD_VALUE}",
        "fieldSelector": f"spec.nodeName={node}",
    }
    return Informer(api, "/api/v1/pods", Pod, lambda _change: None, query=query)


def run(config: Config) -> int:
    """Watch, ask, serve, until a signal; with `once` print the metrics and end."""
    lifecycle = Lifecycle()
    lifecycle.stop_on_signals()
    try:
        api = Api.from_environment()
    except kubernetes.config.ConfigException as error:
        return _complain(f"no way to the Kubernetes API: {error}; set KUBECONFIG", 2)
    pods = pods_of(api, config.node_name)
    host = Host(
        Nvml(config.driver_root),
        interval_s=config.nvml_interval_s,
        deadline_s=config.nvml_deadline_s,
    )
    registry = register(
        CollectorRegistry(),
        BuildInfo(),
        HostCollector(host, config.node_name),
        ContainerCollector(config.containers, pods.items),
    )
    lifecycle.ready_when("pods", pods.missing)
    pods.start()
    host.start(lifecycle.stopping)
    if config.once:
        return _once(registry, pods, host)
    try:
        serve(status_app(lifecycle, registry), config.host, config.port)
    except OSError as error:
        return _complain(f"cannot listen on {config.host}:{config.port}: {error}", 1)
    log.info("serving", port=config.port)
    lifecycle.stopping.wait()
    pods.stop()
    log.info("stopped")
    return 0


def _once(registry: CollectorRegistry, pods: Informer[Pod], host: Host) -> int:
    host.answered.wait(_ONCE_S)
    if not pods.synced.wait(_ONCE_S):
        return _complain(f"no {pods.missing()} after {_ONCE_S:.0f} s", 1)
    print(generate_latest(registry).decode(), end="")
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
