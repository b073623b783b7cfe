"""What mig-manager is told by its arguments and its environment."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hami_mig_manager.plan import Rules
from hamikit import names
from hamikit.arguments import Flag, Parser, address, log_level, seconds


@dataclass(frozen=True, slots=True)
class Config:
    """All settings.

    `node_config_file` says which nodes' cards are to be divided; without it no mode is changed.
    Below `cgroup_root` the node's cgroups are looked for. With `once` everything is done that can
    be done now, then the process ends; with `dry_run` it is only said.
    """

    node_name: str
    driver_root: Path = Path(names.DRIVER_ROOT)
    cgroup_root: Path = Path("/sys/fs/cgroup")
    node_config_file: Path | None = None
    host: str = "0.0.0.0"
    port: int = names.PORT_MIG_MANAGER_STATUS
    nvml_deadline_s: float = 10.0
    rules: Rules = field(default_factory=Rules)
    log_level: str = "info"
    once: bool = False
    dry_run: bool = False

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
            driver_root=Path(given.driver_root),
            cgroup_root=Path(given.cgroup_root),
            node_config_file=Path(given.node_config_file) if given.node_config_file else None,
            host=host,
            port=port,
            nvml_deadline_s=given.nvml_deadline,
            rules=Rules(given.grace, given.patience, given.block),
            log_level=given.log_level,
            once=given.once,
            dry_run=given.dry_run,
        )


def _parser(environ: Mapping[str, str]) -> Parser:
    parser = Parser(
        prog="hami-mig-manager", description="Makes and removes MIG instances as pods need them."
    )
    rules, period = Rules(), seconds(0, 86400)
    for flag in (
        Flag("--node-name", names.ENV_NODE_NAME, "", "this node"),
        Flag("--driver-root", names.ENV_DRIVER_ROOT, names.DRIVER_ROOT, "the driver's files"),
        Flag("--cgroup-root", "CGROUP_ROOT", "/sys/fs/cgroup", "the node's cgroups"),
        Flag("--node-config-file", "NODE_CONFIG_FILE", "", "config.json: modes of single nodes"),
        Flag("--metrics-bind-address", "METRICS_BIND_ADDRESS", f":{names.PORT_MIG_MANAGER_STATUS}",
             "listener of /metrics, /healthz, /readyz", address),
        Flag("--nvml-deadline", "NVML_DEADLINE", "10",
             "seconds after which NVML counts as silent", seconds(0.1, 3600)),
        Flag("--grace", "GRACE", f"{rules.grace_s:g}",
             "seconds that an instance stays that nobody needs", period),
        Flag("--patience", "PATIENCE", f"{rules.patience_s:g}",
             "seconds that a pod waits for others to let go of its placement", period),
        Flag("--block", "BLOCK", f"{rules.block_s:g}",
             "seconds that a placement stays blocked where nothing could be made", period),
        log_level(),
    ):  # fmt: skip
        flag.add(parser, environ)
    parser.add_argument("--once", action="store_true", help="do what can be done now, and end")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    return parser


def load() -> Config:
    """The settings of this process."""
    return Config.parse(sys.argv[1:], os.environ)
