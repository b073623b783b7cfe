"""hami-webhook: serve admission questions, keep certificates, or print match conditions."""

import asyncio
import sys
from dataclasses import asdict
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry

from hami_webhook.app import create_app
from hami_webhook.conditions import match_condition
from hami_webhook.config import CertificatesConfig, ConditionsConfig, ServeConfig, parse
from hami_webhook.metrics import Metrics
from hami_webhook.rules import Rules
from hami_webhook.server import Server
from hamikit import logs
from hamikit.deviceconfig import ConfigError, load_family
from hamikit.service import Lifecycle, serve, status_app

log = structlog.get_logger()


def main() -> int:
    """Run the command that the arguments name."""
    config = parse(sys.argv[1:])
    try:
        if isinstance(config, ConditionsConfig):
            print(match_condition(load_family(config.device_config_file)))
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


def _serve(config: ServeConfig) -> None:
    rules = Rules(
        family=load_family(config.device_config_file),
        scheduler_name=config.scheduler_name,
        take_default=config.take_default,
    )
    registry, lifecycle = CollectorRegistry(), Lifecycle()
    metrics = Metrics(registry)
    server = Server(config, create_app(rules, metrics), metrics, lifecycle)
    serve(status_app(lifecycle, registry), *config.status_address)
    asyncio.run(server.run())


def _keep_certificates(config: CertificatesConfig) -> None:
    # The Kubernetes client takes a second to import, and who answers admissions never needs it.
    from hami_webhook.keeper import keep  # noqa: PLC0415

    lifecycle = Lifecycle()
    lifecycle.stop_on_signals()
    keep(config, lifecycle.stopping)


if __name__ == "__main__":
    sys.exit(main())
