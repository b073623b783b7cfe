"""Settings from the command line, each with a default from the environment."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hami_extender.score import BINPACK, SPREAD
from hamikit import names
from hamikit.arguments import Flag, Parser, address, log_level, port, seconds, truth

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


def _flag(name: str, default: str, text: str, kind: Callable[[str], object] = str) -> Flag:
    return Flag(f"--{name}", _variable(name), default, text, kind)


def _variable(name: str) -> str:
    return "HAMI_" + name.upper().replace("-", "_")


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = Parser(prog="hami-extender", description=__doc__)
    lock_timeout = environ.get(HAMI_LOCK_EXPIRE, "5m")
    text = "after this long a node lock counts as left over"
    for flag in (*_FLAGS, _flag("node-lock-timeout", lock_timeout, text, _duration)):
        flag.add(parser, environ)
    return parser


def _policy(text: str) -> str:
    if text not in (BINPACK, SPREAD):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {BINPACK}, {SPREAD}")
    return text


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


_FLAGS = (
    _flag("device-config-file", "", "device-config.yaml; without it HAMi's defaults"),
    _flag("enable-ascend", "false", "serve the chips under `vnpus:` of that file", truth),
    _flag("scheduler-name", names.SCHEDULER_NAME, "our kube-scheduler profile; source of events"),
    _flag("node-scheduler-policy", BINPACK, "where pods go: binpack or spread", _policy),
    _flag("gpu-scheduler-policy", SPREAD, "which cards, as the pod annotation spells it"),
    _flag("shortlist", "64", "nodes that filter leaves; 1 or `strict` is HAMi's way", _shortlist),
    _flag("bind-address", DEFAULT_BIND, "where kube-scheduler finds us", address),
    _flag("status-address", DEFAULT_STATUS, "health and metrics", address),
    _flag(
        "explain-port",
        str(names.PORT_EXTENDER_EXPLAIN),
        "port on 127.0.0.1 for /explain, /simulate and /state; 0 for none",
        port,
    ),
    _flag("lock-protocol", "false", "bind to nodes that speak HAMi's lock protocol, too", truth),
    _flag("start-delay", "4", "seconds for a predecessor's last write to end", seconds(0, 60)),
    _flag("legacy-metrics", "false", "the names before HAMi 2.10 too", truth),
    _flag("leader-elect", "false", "bind only while our kube-scheduler leads", truth),
    _flag("leader-elect-resource-name", names.SCHEDULER_NAME, "its lease"),
    _flag("leader-elect-resource-namespace", names.NAMESPACE, "the lease's namespace"),
    log_level(_variable("log-level")),
)
