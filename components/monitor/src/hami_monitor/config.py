"""What the monitor is told by its arguments and its environment."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hami_monitor.audit import Kind
from hamikit import names
from hamikit.arguments import Flag, Parser, address, log_level, seconds, truth, whole
from hamikit.codec import split_list

HOST_PROGRAMS: Final = ("nvidia-cuda-mps", "Xorg")
"""As /proc names them, cut to 15 characters."""
_EVICTABLE: Final = tuple(kind.value for kind in Kind if kind is not Kind.UNKNOWN_POD)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings.

    NVML is asked every `nvml_interval_s` seconds; an answer that takes longer than
    `nvml_deadline_s` counts as none. With `feedback` containers of low priority wait. A process may
    hold `audit_overhead_mib` beside what the limiter counts; the host's own `audit_host_programs`
    may use cards. Pods of findings of the kinds `evict` are evicted, with `evict_dry_run` in name
    only. With `mig_pause` NVML is closed while mig-manager asks for it. `once` prints the metrics a
    single time and ends.
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
    mig_pause: bool = False
    log_level: str = "info"
    once: bool = False

    @property
    def containers(self) -> Path:
        """Where the node keeps a folder for each container."""
        return self.hook_path / "vgpu" / names.CONTAINERS_NAME

    @classmethod
    def parse(cls, argv: Sequence[str], environ: Mapping[str, str]) -> "Config":
        """Read arguments, with the environment for what they leave out.

        What is wrong ends the process with code 2 and one line that says which setting.
        """
        parser = _parser(environ)
        given = parser.parse_args(list(argv))
        parser.need_node_name(given.node_name)
        host, port = given.metrics_bind_address
        return cls(
            node_name=given.node_name,
            hook_path=Path(given.hook_path),
            driver_root=Path(given.driver_root),
            host=host,
            port=port,
            nvml_interval_s=given.nvml_interval,
            nvml_deadline_s=given.nvml_deadline,
            feedback=given.feedback,
            audit_overhead_mib=given.audit_overhead_mib,
            audit_host_programs=given.audit_host_programs,
            evict=given.audit_evict,
            evict_dry_run=given.audit_evict_dry_run,
            legacy_metrics=given.legacy_metrics,
            mig_pause=given.mig_pause,
            log_level=given.log_level,
            once=given.once,
        )


def _kinds(text: str) -> tuple[Kind, ...]:
    words = split_list(text)
    for word in words:
        if word not in _EVICTABLE:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(_EVICTABLE)}")
    return tuple(Kind(word) for word in words)


_TIME = seconds(0.1, 3600)
_FLAGS: Final = (
    Flag("--node-name", names.ENV_NODE_NAME, "", "this node"),
    Flag("--hook-path", names.ENV_HOOK_PATH, names.HOOK_PATH, "folder with vgpu/containers"),
    Flag("--driver-root", names.ENV_DRIVER_ROOT, names.DRIVER_ROOT, "the driver's files"),
    Flag("--metrics-bind-address", "METRICS_BIND_ADDRESS", f":{names.PORT_MONITOR_METRICS}",
          "listener of /metrics, /healthz, /readyz", address, "[HOST]:PORT"),
    Flag("--nvml-interval", "NVML_INTERVAL", "1", "pause between two questions to NVML", _TIME,
          "SECONDS"),
    Flag("--nvml-deadline", "NVML_DEADLINE", "10", "after this long NVML counts as silent",
          _TIME, "SECONDS"),
    Flag("--feedback", "FEEDBACK", "true", "tell containers whether they have to wait", truth,
          "BOOL"),
    Flag("--audit-overhead-mib", "AUDIT_OVERHEAD_MIB", "1024",
          "contexts and modules that a process may hold uncounted", whole(1 << 20), "MIB"),
    Flag("--audit-host-programs", "AUDIT_HOST_PROGRAMS", ",".join(HOST_PROGRAMS),
          "programs of the host that may use cards", split_list, "NAME,...", may_be_empty=True),
    Flag("--audit-evict", "AUDIT_EVICT", "",
          f"findings whose pod is evicted: {', '.join(_EVICTABLE)}", _kinds, "KIND,..."),
    Flag("--audit-evict-dry-run", "AUDIT_EVICT_DRY_RUN", "true",
          "ask for evictions without consequence", truth, "BOOL"),
    Flag("--legacy-metrics", "LEGACY_METRICS", "false", "the names before HAMi 2.10 too", truth,
          "BOOL"),
    Flag("--mig-pause", "MIG_PAUSE", "false", "close NVML while mig-manager asks for it", truth,
          "BOOL"),
    log_level(),
)  # fmt: skip


def _parser(environ: Mapping[str, str]) -> Parser:
    parser = Parser(prog="hami-monitor", description="Metrics of a node's cards and containers.")
    for flag in _FLAGS:
        flag.add(parser, environ)
    parser.add_argument("--once", action="store_true", help="print the metrics once and end")
    return parser


def load() -> Config:
    """The settings of this process."""
    return Config.parse(sys.argv[1:], os.environ)
