"""What the monitor is told by its arguments and its environment."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hamikit import names

_LEVELS = ("debug", "info", "warning", "error")


class ConfigError(Exception):
    """A setting that cannot be used; the text names it and says what to write."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings.

    NVML is asked every `nvml_interval_s` seconds; an answer that takes longer than
    `nvml_deadline_s` counts as none. `once` prints the metrics a single time and ends.
    """

    node_name: str
    hook_path: Path = Path(names.HOOK_PATH)
    driver_root: Path = Path(names.DRIVER_ROOT)
    host: str = "0.0.0.0"
    port: int = names.PORT_MONITOR_METRICS
    nvml_interval_s: float = 5.0
    nvml_deadline_s: float = 10.0
    log_level: str = "info"
    once: bool = False

    @property
    def containers(self) -> Path:
        """Where the node keeps a folder for each container."""
        return self.hook_path / "vgpu" / names.CONTAINERS_NAME

    @classmethod
    def parse(cls, argv: Sequence[str], environ: Mapping[str, str]) -> "Config":
        """Read arguments, with the environment for what they leave out.

        Raises:
            ConfigError: one line that says which setting and what is wrong with it.
        """
        given = _parser(environ).parse_args(list(argv))
        if not given.node_name:
            raise ConfigError(
                f"the node's name is missing: set {names.ENV_NODE_NAME} from spec.nodeName "
                "or give --node-name"
            )
        if given.log_level not in _LEVELS:
            raise ConfigError(f"--log-level {given.log_level!r} is none of {', '.join(_LEVELS)}")
        host, port = _address(given.metrics_bind_address)
        return cls(
            node_name=given.node_name,
            hook_path=Path(given.hook_path),
            driver_root=Path(given.driver_root),
            host=host,
            port=port,
            nvml_interval_s=_seconds("--nvml-interval", given.nvml_interval),
            nvml_deadline_s=_seconds("--nvml-deadline", given.nvml_deadline),
            log_level=given.log_level,
            once=given.once,
        )


class _Parser(argparse.ArgumentParser):
    """Argparse that raises where it would print its usage and end the process."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="hami-monitor", description="Metrics of a node's cards and containers.")
    add, get = parser.add_argument, environ.get
    add("--node-name", default=get(names.ENV_NODE_NAME, ""), help="this node [NODE_NAME]")
    add(
        "--hook-path",
        default=get(names.ENV_HOOK_PATH) or names.HOOK_PATH,
        help="folder that has vgpu/containers [HOOK_PATH, %(default)s]",
    )
    add(
        "--driver-root",
        default=get(names.ENV_DRIVER_ROOT) or names.DRIVER_ROOT,
        help="where the NVIDIA driver's files are mounted [DRIVER_ROOT, %(default)s]",
    )
    add(
        "--metrics-bind-address",
        default=get("METRICS_BIND_ADDRESS") or f":{names.PORT_MONITOR_METRICS}",
        metavar="[HOST]:PORT",
        help="listener of /metrics, /healthz, /readyz [METRICS_BIND_ADDRESS, %(default)s]",
    )
    add(
        "--nvml-interval",
        default=get("NVML_INTERVAL") or "5",
        metavar="SECONDS",
        help="pause between two questions to NVML [NVML_INTERVAL, %(default)s]",
    )
    add(
        "--nvml-deadline",
        default=get("NVML_DEADLINE") or "10",
        metavar="SECONDS",
        help="after this long NVML counts as silent [NVML_DEADLINE, %(default)s]",
    )
    add("--log-level", default=get("LOG_LEVEL") or "info", help="one of " + ", ".join(_LEVELS))
    add("--once", action="store_true", help="print the metrics a single time and end")
    return parser


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ConfigError(
            f"--metrics-bind-address {text!r} is no address: write [HOST]:PORT, for example :9394"
        )
    return host.strip("[]") or "0.0.0.0", int(port)


def _seconds(flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{flag} {text!r} is no number of seconds") from error
    if not 0.1 <= value <= 3600:
        raise ConfigError(f"{flag} {text!r} must lie between 0.1 and 3600 seconds")
    return value


def load() -> Config:
    """The settings of this process; a bad one ends it with one line and exit code 2."""
    try:
        return Config.parse(sys.argv[1:], os.environ)
    except ConfigError as error:
        print(f"hami-monitor: {error}", file=sys.stderr)
        raise SystemExit(2) from error
