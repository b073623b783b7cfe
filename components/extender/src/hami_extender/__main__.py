"""Runs the extender until it is asked to end."""

import gc
import os
import sys
import threading
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry

from hami_extender.config import Config
from hami_extender.snapshot import Snapshot
from hami_extender.wiring import Parts
from hamikit import logs
from hamikit.cluster import Api
from hamikit.deviceconfig import ConfigError, load_families
from hamikit.service import Lifecycle, serve, status_app

log = structlog.get_logger()

LOOPBACK = "127.0.0.1"
"""Tokens must not cross a network in clear: kubectl port-forward and exec bring people here."""
VERB_THREADS = 64
"""kube-scheduler binds many pods at a time, and each bind waits for one write."""
API_CONNECTIONS = 64
LOOK_EVERY_S = 1.0
YOUNG = 10_000
"""New objects before Python looks for garbage among them: one pod makes a hundred or so, and nearly
all end without its help."""
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
    parts = Parts(config, snapshot, api, registry, build=version("hami-extender"))
    for name, informer in parts.informers.items():
        lifecycle.ready_when(name, informer.missing)
    serve(status_app(lifecycle, registry), config.status_host, config.status_port)
    # Until the first lists are there it answers "starting": better than a refused connection.
    serve(
        parts.verbs(),
        config.bind_host,
        config.bind_port,
        threads=VERB_THREADS,
        at_once=parts.at_once,
    )
    if config.explain_port:
        serve(parts.inquiry(), LOOPBACK, config.explain_port)
    # Of the first lists nothing is garbage: looking for it would take as long as reading them.
    gc.disable()
    threads = [parts.nodes.start(), parts.quotas.start()]
    # What a predecessor sent just before it died has to be in our first list of pods.
    lifecycle.stopping.wait(config.start_delay_s)
    threads.append(parts.pods.start())
    _until_stopped(lifecycle, parts, threads)
    for informer in parts.informers.values():
        informer.stop()
    log.info("stopped")


def _until_stopped(lifecycle: Lifecycle, parts: Parts, threads: list[threading.Thread]) -> None:
    while not lifecycle.stopping.wait(LOOK_EVERY_S):
        parts.look()
        if not gc.isenabled() and all(i.synced.is_set() for i in parts.informers.values()):
            # What stays for good is never looked through again: no answer waits for that.
            gc.collect()
            gc.freeze()
            gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
            gc.enable()
        if not all(thread.is_alive() for thread in threads):
            # A view that stands still would promise cards by an old account: start afresh.
            sys.exit("hami-extender: a watch ended by an error, see the log above; restarting")
    parts.flights.wait_sent(DRAIN_S)


if __name__ == "__main__":
    main()
