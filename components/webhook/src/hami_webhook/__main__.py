"""hami-webhook: serve admission questions, keep certificates, print conditions, check a file."""

import asyncio
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from hami_webhook import cluster_side
from hami_webhook.app import create_app
from hami_webhook.cluster_side import Announcer
from hami_webhook.conditions import match_condition
from hami_webhook.config import (
    CertificatesConfig,
    CheckConfig,
    ConditionsConfig,
    ServeConfig,
    parse,
)
from hami_webhook.live import LiveRules
from hami_webhook.metrics import Metrics
from hami_webhook.rules import Rules
from hami_webhook.server import Server
from hamikit import logs
from hamikit.configcheck import check
from hamikit.deviceconfig import ConfigError, load_families
from hamikit.quotas import Quotas
from hamikit.service import Lifecycle, serve, status_app

log = structlog.get_logger()


def main() -> int:
    """Run the command that the arguments name."""
    config = parse(sys.argv[1:])
    try:
        if isinstance(config, CheckConfig):
            return _check(config)
        if isinstance(config, ConditionsConfig):
            families = load_families(config.device_config_file, ascend=config.enable_ascend)
            print(match_condition(families))
            return 0
        logs.configure(config.log_level)
        log.info("starting", version=version("hami-webhook"), **asdict(config))
        if isinstance(config, ServeConfig):
            _serve(config)
        else:
            _keep_certificates(config)
    except ConfigError as error:
        print(f"hami-webhook: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"hami-webhook: {error}", file=sys.stderr)
        return 1
    return 0


def _check(config: CheckConfig) -> int:
    """Every fault and every oddity; 2 when the file cannot be used."""
    checked = check(Path(config.file).read_text(encoding="utf-8"))
    for finding in checked.faults:
        print(f"{config.file}: {finding}")
    for finding in checked.warnings:
        print(f"{config.file}: {finding} (warning)")
    return 2 if checked.faults else 0


def _serve(config: ServeConfig) -> None:
    base = Rules(scheduler_name=config.scheduler_name, take_default=config.take_default)
    registry, lifecycle = CollectorRegistry(), Lifecycle()
    metrics, quotas, announcer = Metrics(registry), Quotas(), Announcer(config)

    def report(fault: str) -> None:
        metrics.config_changed(fault)
        announcer.report(fault)

    live = LiveRules(config.device_config_file, base, report, ascend=config.enable_ascend)
    lifecycle.note_when("device configuration", lambda: live.fault)
    app = create_app(lambda: live.rules, metrics, quotas=quotas)
    server = Server(config, app, metrics, lifecycle, refresh=live.refresh)
    serve(status_app(lifecycle, registry), *config.status_address)
    cluster_side.start(announcer, quotas)
    asyncio.run(server.run())


def _keep_certificates(config: CertificatesConfig) -> None:
    # The Kubernetes client takes a second to import, and who answers admissions never needs it.
    from hami_webhook.keeper import keep  # noqa: PLC0415

    lifecycle = Lifecycle()
    lifecycle.stop_on_signals()
    keep(config, lifecycle.stopping)


if __name__ == "__main__":
    sys.exit(main())
