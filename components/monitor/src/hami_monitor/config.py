"""What the monitor is told by its arguments and its environment."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from hami_monitor.audit import Kind
from hamikit import names
from hamikit.codec import split_list

HOST_PROGRAMS: Final = ("nvidia-cuda-mps", "Xorg")
"""As /proc names them, cut to 15 characters."""
_EVICTABLE: Final = tuple(kind.value for kind in Kind if kind is not Kind.UNKNOWN_POD)
_LEVELS = ("debug", "info", "warning", "error")


class ConfigError(Exception):
    """A setting that cannot be used; the text names it and says what to write."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings.

    NVML is asked every `nvml_interval_s` seconds; an answer that takes longer than
    `nvml_deadline_s` counts as none. With `feedback` containers of low priority wait. A process may
    hold `audit_overhead_mib` beside what the limiter counts; the host's own `audit_host_programs`
    may use cards. Pods of findings of the kinds `evict` are evicted, with `evict_dry_run` in name
    only. `once` prints the metrics a single time and ends.
    """

    node_name: str
    hook_path: Path = Path(names.HOOK_PATH)
    driver_root: Path = Path(names.DRIVER_ROOT)
    host: str = "0.0.0.0"
    port: int = names.PORT_MONITOR_METRICS
    nvml_interval_s: float = 1.0
    nvml_deadline_s: float = 10.0
    feedback: bool = True
    audit_overhead_mib: int = 1024
    audit_host_programs: tuple[str, ...] = HOST_PROGRAMS
    evict: tuple[Kind, ...] = ()
    evict_dry_run: bool = True
    legacy_metrics: bool = False
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
            feedback=_switch("--feedback", given.feedback),
            audit_overhead_mib=_whole("--audit-overhead-mib", given.audit_overhead_mib),
            audit_host_programs=split_list(given.audit_host_programs),
            evict=_kinds(given.audit_evict),
            evict_dry_run=_switch("--audit-evict-dry-run", given.audit_evict_dry_run),
            legacy_metrics=_switch("--legacy-metrics", given.legacy_metrics),
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
        default=get("NVML_INTERVAL") or "1",
        metavar="SECONDS",
        help="pause between two questions to NVML [NVML_INTERVAL, %(default)s]",
    )
    add(
        "--nvml-deadline",
        default=get("NVML_DEADLINE") or "10",
        metavar="SECONDS",
        help="after this long NVML counts as silent [NVML_DEADLINE, %(default)s]",
    )
    add(
        "--feedback",
        default=get("FEEDBACK") or "true",
        metavar="BOOL",
        help="tell containers whether they have to wait [FEEDBACK, %(default)s]",
    )
    add(
        "--audit-overhead-mib",
        default=get("AUDIT_OVERHEAD_MIB") or "1024",
        metavar="MIB",
        help="contexts and modules that a process may hold uncounted [AUDIT_OVERHEAD_MIB, 1024]",
    )
    add(
        "--audit-host-programs",
        default=get("AUDIT_HOST_PROGRAMS", ",".join(HOST_PROGRAMS)),
        metavar="NAME,...",
        help="programs of the host that may use cards [AUDIT_HOST_PROGRAMS, %(default)s]",
    )
    add(
        "--audit-evict",
        default=get("AUDIT_EVICT", ""),
        metavar="KIND,...",
        help=f"findings whose pod is evicted: {', '.join(_EVICTABLE)} [AUDIT_EVICT, none]",
    )
    add(
        "--audit-evict-dry-run",
        default=get("AUDIT_EVICT_DRY_RUN") or "true",
        metavar="BOOL",
        help="ask for evictions without consequence [AUDIT_EVICT_DRY_RUN, %(default)s]",
    )
    add(
        "--legacy-metrics",
        nargs="?",
        const="true",
        default=get("LEGACY_METRICS") or "false",
        metavar="BOOL",
        help="the names before HAMi 2.10 too [LEGACY_METRICS, %(default)s]",
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


def _whole(flag: str, text: str) -> int:
    if not text.isdecimal() or int(text) > 1 << 20:
        raise ConfigError(f"{flag} {text!r} must be a whole number from 0 to {1 << 20}")
    return int(text)


def _switch(flag: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigError(f"{flag} {text!r} is neither true nor false")
    return text.lower() == "true"


def _kinds(text: str) -> tuple[Kind, ...]:
    words = split_list(text)
    for word in words:
        if word not in _EVICTABLE:
            raise ConfigError(f"--audit-evict {word!r} is none of {', '.join(_EVICTABLE)}")
    return tuple(Kind(word) for word in words)


def load() -> Config:
    """The settings of this process; a bad one ends it with one line and exit code 2."""
    try:
        return Config.parse(sys.argv[1:], os.environ)
    except ConfigError as error:
        print(f"hami-monitor: {error}", file=sys.stderr)
        raise SystemExit(2) from error
