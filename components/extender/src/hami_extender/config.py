"""Settings from the command line, each with a default from the environment."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hami_extender.score import BINPACK, SPREAD
from hamikit import names

DEFAULT_BIND = f"127.0.0.1:{names.PORT_EXTENDER}"
DEFAULT_STATUS = f"0.0.0.0:{names.PORT_EXTENDER_METRICS}"
STRICT = "strict"
HAMI_LOCK_EXPIRE = "HAMI_NODELOCK_EXPIRE"
"""HAMi's variable; counts unless the flag or our own is given."""
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Config:
    """How this extender runs."""

    device_config_file: str | None
    enable_ascend: bool
    scheduler_name: str
    node_policy: str
    gpu_policy: str
    shortlist: int
    bind_host: str
    bind_port: int
    status_host: str
    status_port: int
    explain_port: int
    lock_protocol: bool
    lock_timeout_s: float
    start_delay_s: float
    legacy_metrics: bool
    leader_elect: bool
    lease_name: str
    lease_namespace: str
    log_level: str

    @classmethod
    def parse(cls, argv: Sequence[str], environ: Mapping[str, str]) -> "Config":
        """Read settings; what is wrong ends the process with code 2 and one line that says so."""
        options = _parser(environ).parse_args(argv)
        bind_host, bind_port = options.bind_address
        status_host, status_port = options.status_address
        return cls(
            device_config_file=options.device_config_file or None,
            enable_ascend=options.enable_ascend,
            scheduler_name=options.scheduler_name,
            node_policy=options.node_scheduler_policy,
            gpu_policy=options.gpu_scheduler_policy,
            shortlist=options.shortlist,
            bind_host=bind_host,
            bind_port=bind_port,
            status_host=status_host,
            status_port=status_port,
            explain_port=options.explain_port,
            lock_protocol=options.lock_protocol,
            lock_timeout_s=options.node_lock_timeout,
            start_delay_s=options.start_delay,
            legacy_metrics=options.legacy_metrics,
            leader_elect=options.leader_elect,
            lease_name=options.leader_elect_resource_name,
            lease_namespace=options.leader_elect_resource_namespace,
            log_level=options.log_level,
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        """One line, without the usage."""
        self.exit(2, f"{self.prog}: {message}\n")


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="hami-extender", description=__doc__)

    def add(flag: str, default: str, text: str, kind: object = str, **more: object) -> None:
        variable = "HAMI_" + flag.upper().replace("-", "_")
        parser.add_argument(
            f"--{flag}",
            default=environ.get(variable, default),
            type=kind,  # type: ignore[arg-type]
            help=f"{text} (default {default!r}, or {variable})",
            **more,  # type: ignore[arg-type]
        )

    add("device-config-file", "", "device-config.yaml; without it HAMi's defaults")
    add(
        "enable-ascend",
        "false",
        "serve the chips under `vnpus:` of that file",
        _truth,
        nargs="?",
        const="true",
    )
    add("scheduler-name", names.SCHEDULER_NAME, "our kube-scheduler profile; source of events")
    both = (BINPACK, SPREAD)
    add("node-scheduler-policy", BINPACK, "where pods go", choices=both)
    add("gpu-scheduler-policy", SPREAD, "which cards, as the pod annotation spells it")
    add("shortlist", "64", "nodes that filter leaves; 1 or `strict` is HAMi's way", _shortlist)
    add("bind-address", DEFAULT_BIND, "where kube-scheduler finds us", _address)
    add("status-address", DEFAULT_STATUS, "health and metrics", _address)
    add(
        "explain-port",
        str(names.PORT_EXTENDER_EXPLAIN),
        "port on 127.0.0.1 for /explain, /simulate and /state; 0 for none",
        _port,
    )
    add(
        "lock-protocol",
        "false",
        "bind to nodes that speak HAMi's lock protocol, too",
        _truth,
        nargs="?",
        const="true",
    )
    add(
        "node-lock-timeout",
        environ.get(HAMI_LOCK_EXPIRE, "5m"),
        "after this long a node lock counts as left over",
        _duration,
    )
    add("start-delay", "4", "seconds for a predecessor's last write to end", _seconds)
    add(
        "legacy-metrics",
        "false",
        "the names before HAMi 2.10 too",
        _truth,
        nargs="?",
        const="true",
    )
    add(
        "leader-elect",
        "false",
        "bind only while our kube-scheduler leads",
        _truth,
        nargs="?",
        const="true",
    )
    add("leader-elect-resource-name", names.SCHEDULER_NAME, "its lease")
    add("leader-elect-resource-namespace", names.NAMESPACE, "the lease's namespace")
    add("log-level", "info", "log", choices=("debug", "info", "warning", "error"))
    return parser


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is no address; write host:port")
    return host.strip("[]") or "0.0.0.0", _port(port)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; write a number up to 65535")
    return int(text)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} must be true or false")
    return text == "true"


def _shortlist(text: str) -> int:
    value = 1 if text == STRICT else int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of nodes; write 1 or more")
    return value


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    parts = [int(part or 0) for part in match.groups()] if match else [0]
    if match is None or not any(parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write one like 5m or 1h30m")
    return float(parts[0] * 3600 + parts[1] * 60 + parts[2])


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds from 0 to 60")
    return value
