"""The device plugin's settings: the only reader of argv and the environment."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hami_device_plugin.answer import STRATEGIES, CdiTelling
from hami_device_plugin.xids import XidPolicy
from hamikit import names

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
        if not options.node_name:
            parser.error("--node-name (or NODE_NAME) is empty: give the name of this node")
        host, _, port = options.status_address.rpartition(":")
        if not port.isdigit():
            parser.error(f"--status-address {options.status_address!r} is no HOST:PORT")
        strategies = {word.strip() for word in options.device_list_strategy.split(",")} - {""}
        if unknown := sorted(strategies.difference(STRATEGIES)):
            parser.error(f"--device-list-strategy has {unknown[0]!r}; use {', '.join(STRATEGIES)}")
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
            status_port=int(port),
            scan_s=options.scan_seconds,
            prestart_s=options.prestart_seconds,
            quiet_s=options.recovery_seconds,
            topology=options.enable_topology_score == "true",
            xids=XidPolicy.read(environ),
            cdi_telling=CdiTelling(frozenset(strategies), options.cdi_annotation_prefix),
            once=options.once,
            uninstall=options.uninstall,
            log_level=options.log_level,
        )


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hami-device-plugin",
        description="Announces this node's cards and hands each container exactly its grant.",
    )

    def flag(name: str, variable: str, default: str, text: str) -> None:
        value = environ.get(variable, default)
        parser.add_argument(name, default=value, help=f"{text} ({variable}; now {value or 'none'})")

    flag("--node-name", names.ENV_NODE_NAME, "", "name of this node")
    flag("--device-config-file", "DEVICE_CONFIG_FILE", "", "device-config.yaml of the cluster")
    flag("--node-config-file", "NODE_CONFIG_FILE", "", "config.json with settings per node")
    flag("--plugin-dir", "PLUGIN_DIR", KUBELET_DIR, "kubelet's folder of plugin sockets")
    flag("--checkpoint", "CHECKPOINT", "", f"kubelet's {CHECKPOINT_NAME}, if elsewhere")
    flag("--cdi-dirs", "CDI_DIRS", ",".join(names.CDI_DIRS), "folders of the node's CDI specs")
    flag("--cdi-dynamic-dir", "CDI_DYNAMIC_DIR", names.CDI_DYNAMIC_DIR, "where our specs go")
    flag("--hook-path", names.ENV_HOOK_PATH, names.HOOK_PATH, "host folder that holds vgpu/")
    flag("--driver-root", names.ENV_DRIVER_ROOT, names.DRIVER_ROOT, "root of the driver's files")
    flag("--sys-root", "SYS_ROOT", "/sys", "where sysfs is")
    flag("--containerd-config", "CONTAINERD_CONFIG", "/etc/containerd/config.toml", "its settings")
    flag("--status-address", "STATUS_ADDRESS", f"0.0.0.0:{names.PORT_PLUGIN_STATUS}", "HOST:PORT")
    flag("--log-level", "LOG_LEVEL", "info", "debug, info, warning or error")
    flag("--enable-topology-score", "ENABLE_TOPOLOGY_SCORE", "", "`true`: announce pair scores")
    flag("--device-list-strategy", "DEVICE_LIST_STRATEGY", "", "HAMi's; with its lock protocol")
    prefix = names.CDI_ANNOTATION_PREFIX
    flag("--cdi-annotation-prefix", "CDI_ANNOTATION_PREFIX", prefix, "for cdi-annotations")
    for name, default, text in (
        ("--scan-seconds", 30.0, "how often the node's files are looked at"),
        ("--recovery-seconds", 60.0, "how long an error counts for which NVML asks no repair"),
        ("--prestart-seconds", 25.0, "how long a container start waits for what is late"),
    ):
        parser.add_argument(name, type=float, default=default, help=f"{text} ({default:g})")
    parser.add_argument("--once", action="store_true", help="print what would be announced, end")
    parser.add_argument(
        "--uninstall",
        action="store_true",
        help="take our files and annotations off this node, each as soon as no pod needs it",
    )
    return parser
