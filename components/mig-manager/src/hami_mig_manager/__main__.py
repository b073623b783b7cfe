"""The process: puts the parts together and runs them."""

import sys
import threading
import time
from functools import partial
from importlib.metadata import version

import kubernetes
import structlog
from prometheus_client import CollectorRegistry

from hami_mig_manager.apply import Manager
from hami_mig_manager.cards import NvmlCards
from hami_mig_manager.chooser import Chooser
from hami_mig_manager.cluster_side import ClusterSide
from hami_mig_manager.config import Config, load
from hami_mig_manager.loop import Loop
from hami_mig_manager.metrics import Metrics
from hami_mig_manager.remains import Remains
from hami_mig_manager.switching import Switcher
from hami_mig_manager.wish import load_wish
from hamikit import logs
from hamikit.cluster import Api
from hamikit.events import Events
from hamikit.gpu import Nvml
from hamikit.informer import Informer
from hamikit.objects import Pod
from hamikit.service import Lifecycle, serve, status_app

log = structlog.get_logger()

_SYNC_S = 30.0


def run(config: Config) -> int:
    """Watch and work until a signal; with `once` work a single time."""
    lifecycle = Lifecycle()
    lifecycle.stop_on_signals()
    try:
        api = Api.from_environment()
    except kubernetes.config.ConfigException as error:
        return _complain(f"no way to the Kubernetes API: {error}; set KUBECONFIG", 2)
    registry, news = CollectorRegistry(), threading.Event()
    metrics = Metrics(registry)
    query = {"fieldSelector": f"spec.nodeName={config.node_name}"}
    pods = Informer(api, "/api/v1/pods", Pod, lambda _change: news.set(), query=query)
    node = ClusterSide(
        api,
        config.node_name,
        pods.items,
        Remains(config.cgroup_root),
        events=Events(api, "hami-mig-manager", config.node_name),
        now=time.time,
    )
    cards = NvmlCards(Nvml(config.driver_root), deadline_s=config.nvml_deadline_s)
    manager = Manager(cards, node, metrics, time.time, config.rules, config.dry_run)
    switcher = Switcher(
        cards,
        node,
        partial(load_wish, config.node_config_file, config.node_name),
        time.time,
        metrics.failed,
        choose=Chooser(api, config.node_name),
    )
    works = [manager.settle] if config.dry_run else [manager.settle, switcher.settle]
    loop = Loop(works, news, lifecycle.stopping, nvml_up=metrics.nvml.set)
    lifecycle.ready_when("pods", pods.missing)
    lifecycle.ready_when("cards", loop.missing)
    pods.start()
    return _once(pods, loop) if config.once else _serve(config, lifecycle, registry, pods, loop)


def _once(pods: Informer[Pod], loop: Loop) -> int:
    if not pods.synced.wait(_SYNC_S):
        return _complain(f"no {pods.missing()} after {_SYNC_S:.0f} s", 1)
    loop.step()
    return _complain(missing, 1) if (missing := loop.missing()) else 0


def _serve(
    config: Config,
    lifecycle: Lifecycle,
    registry: CollectorRegistry,
    pods: Informer[Pod],
    loop: Loop,
) -> int:
    try:
        serve(status_app(lifecycle, registry), config.host, config.port)
    except OSError as error:
        return _complain(f"cannot listen on {config.host}:{config.port}: {error}", 1)
    log.info("serving", port=config.port)
    # Who does not know the pods yet would take every instance for unused.
    while not pods.synced.wait(0.5) and not lifecycle.stopping.is_set():
        continue
    worker = threading.Thread(target=loop.run, name="loop", daemon=True)
    worker.start()
    lifecycle.stopping.wait()
    loop.news.set()
    pods.stop()
    worker.join(10)
    log.info("stopped")
    return 0


def _complain(what: str, code: int) -> int:
    print(f"hami-mig-manager: {what}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of `hami-mig-manager`."""
    config = load()
    logs.configure(config.log_level)
    log.info(
        "starting",
        version=version("hami-mig-manager"),
        node=config.node_name,
        driver_root=str(config.driver_root),
        listen=f"{config.host}:{config.port}",
        rules=str(config.rules),
        dry_run=config.dry_run,
    )
    raise SystemExit(run(config))


if __name__ == "__main__":
    main()
