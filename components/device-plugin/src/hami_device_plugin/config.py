"""The device plugin's settings: the only reader of argv and the environment."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hami_device_plugin.answer import STRATEGIES, CdiTelling
from hami_device_plugin.xids import XidPolicy
from hamikit import names
from hamikit.arguments import Flag, Parser, address, log_level, seconds, truth
from hamikit.codec import split_list

KUBELET_DIR = "/var/lib/kubelet/device-plugins"
CHECKPOINT_NAME = "kubelet_internal_checkpoint"


@dataclass(frozen=True, slots=True)
class Config:
    """Where everything is; every path can be another one in tests."""

    node_name: str
    device_config_file: str | None
    node_config_file: str | None
    plugin_dir: Path
    checkpoint: Path
    cdi_dirs: tuple[Path, ...]
    cdi_dynamic_dir: Path
    hook_path: Path
    driver_root: Path
    sys_root: Path
    containerd_config: Path
    status_host: str
    status_port: int
    scan_s: float
    prestart_s: float
    quiet_s: float
    topology: bool
    xids: XidPolicy
    cdi_telling: CdiTelling
    once: bool
    uninstall: bool
    log_level: str

    @property
    def vgpu_dir(self) -> Path:
        """Our folder on the host."""
        return self.hook_path / "vgpu"

    @classmethod
    def parse(cls, argv: Sequence[str], environ: Mapping[str, str]) -> "Config":
        """Read flags, with variables as defaults; a mistake ends with one line and code 2."""
        parser = _parser(environ)
        options = parser.parse_args(argv)
        parser.need_node_name(options.node_name)
        host, port = options.status_address
        plugin_dir = Path(options.plugin_dir)
        checkpoint = options.checkpoint or plugin_dir / CHECKPOINT_NAME
        return cls(
            node_name=options.node_name,
            device_config_file=options.device_config_file or None,
            node_config_file=options.node_config_file or None,
            plugin_dir=plugin_dir,
            checkpoint=Path(checkpoint),
            cdi_dirs=tuple(map(Path, options.cdi_dirs.split(","))),
            cdi_dynamic_dir=Path(options.cdi_dynamic_dir),
            hook_path=Path(options.hook_path),
            driver_root=Path(options.driver_root),
            sys_root=Path(options.sys_root),
            containerd_config=Path(options.containerd_config),
            status_host=host,
            status_port=port,
            scan_s=options.scan_seconds,
            prestart_s=options.prestart_seconds,
            quiet_s=options.recovery_seconds,
            topology=options.enable_topology_score,
            xids=XidPolicy.read(environ),
            cdi_telling=CdiTelling(options.device_list_strategy, options.cdi_annotation_prefix),
            once=options.once,
            uninstall=options.uninstall,
            log_level=options.log_level,
        )


def _strategies(text: str) -> frozenset[str]:
    found = frozenset(split_list(text))
    if unknown := sorted(found.difference(STRATEGIES)):
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(STRATEGIES)}")
    return found


_TIME = seconds(0.1, 3600)
_FLAGS = (
    Flag("--node-name", names.ENV_NODE_NAME, "", "name of this node"),
    Flag("--device-config-file", "DEVICE_CONFIG_FILE", "", "device-config.yaml of the cluster"),
    Flag("--node-config-file", "NODE_CONFIG_FILE", "", "config.json with settings per node"),
    Flag("--plugin-dir", "PLUGIN_DIR", KUBELET_DIR, "kubelet's folder of plugin sockets"),
    Flag("--checkpoint", "CHECKPOINT", "", f"kubelet's {CHECKPOINT_NAME}, if elsewhere"),
    Flag("--cdi-dirs", "CDI_DIRS", ",".join(names.CDI_DIRS), "folders of the node's CDI specs"),
    Flag("--cdi-dynamic-dir", "CDI_DYNAMIC_DIR", names.CDI_DYNAMIC_DIR, "where our specs go"),
    Flag("--hook-path", names.ENV_HOOK_PATH, names.HOOK_PATH, "host folder that holds vgpu/"),
    Flag("--driver-root", names.ENV_DRIVER_ROOT, names.DRIVER_ROOT, "root of the driver's files"),
    Flag("--sys-root", "SYS_ROOT", "/sys", "where sysfs is"),
    Flag("--containerd-config", "CONTAINERD_CONFIG", "/etc/containerd/config.toml",
         "its settings"),
    Flag("--status-address", "STATUS_ADDRESS", f":{names.PORT_PLUGIN_STATUS}",
         "listener of /metrics, /healthz, /readyz", address, "[HOST]:PORT"),
    Flag("--enable-topology-score", "ENABLE_TOPOLOGY_SCORE", "false", "announce pair scores",
         truth),
    Flag("--device-list-strategy", "DEVICE_LIST_STRATEGY", "", "HAMi's; with its lock protocol",
         _strategies),
    Flag("--cdi-annotation-prefix", "CDI_ANNOTATION_PREFIX", names.CDI_ANNOTATION_PREFIX,
         "for cdi-annotations"),
    Flag("--scan-seconds", "SCAN_SECONDS", "30", "how often the node's files are looked at",
         _TIME),
    Flag("--recovery-seconds", "RECOVERY_SECONDS", "60",
         "how long an error counts for which NVML asks no repair", seconds(0, 86400)),
    Flag("--prestart-seconds", "PRESTART_SECONDS", "25",
         "how long a container start waits for what is late", seconds(0, 3600)),
    log_level(),
)  # fmt: skip


def _parser(environ: Mapping[str, str]) -> Parser:
    parser = Parser(
        prog="hami-device-plugin",
        description="Announces this node's cards and hands each container exactly its grant.",
    )
    for flag in _FLAGS:
        flag.add(parser, environ)
    parser.add_argument("--once", action="store_true", help="print what would be announced, end")
    parser.add_argument(
        "--uninstall",
        action="store_true",
        help="take our files and annotations off this node, each as soon as no pod needs it",
    )
    return parser
