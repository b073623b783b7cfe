"""Running the installer for as long as the webhook lives."""

import threading
from collections.abc import Callable, Mapping

import structlog
from kubernetes.config import ConfigException

from hami_webhook.conditions import CONDITIONS
from hami_webhook.config import CertificatesConfig
from hami_webhook.installer import Installer
from hami_webhook.live import LiveRules
from hami_webhook.rules import Rules
from hamikit.cluster import Api, ApiError, Unreachable
from hamikit.deviceconfig import ConfigError

log = structlog.get_logger()

_SLOWEST_S = 15.0


def keep(
    config: CertificatesConfig, stopping: threading.Event, installer: Installer | None = None
) -> None:
    """Install again and again until `stopping`, or until the first success with `once`.

    Raises:
        ConfigError: there is no API server to talk to.
    """
    installer = installer or Installer(_api(), config, conditions=_conditions(config))
    failures = 0
    while not stopping.is_set():
        try:
            installer.run_once()
        except (ApiError, Unreachable) as error:
            failures += 1
            delay = min(0.25 * 2.0**failures, _SLOWEST_S)
            log.warning("certificates: trying again", error=str(error), in_s=delay)
        else:
            if config.once:
                return
            failures, delay = 0, config.interval_s
        stopping.wait(delay)


def _api() -> Api:
    try:
        return Api.from_environment()
    except ConfigException as error:
        raise ConfigError(
            f"no API server: {error}; run in a pod with a service account, or set KUBECONFIG"
        ) from error


def _conditions(config: CertificatesConfig) -> Callable[[], Mapping[str, str]]:
    """What tells the conditions of the resource names in force; none without a file."""
    if not config.device_config_file:
        return dict
    live = LiveRules(config.device_config_file, Rules(), ascend=config.enable_ascend)

    def present() -> Mapping[str, str]:
        live.refresh()
        return {name: write(live.rules.families) for name, write in CONDITIONS.items()}

    return present
