"""hami-device-plugin: wiring only."""

import asyncio
import os
import signal
import sys
import time
from dataclasses import asdict
from functools import partial
from importlib.metadata import version

import structlog

from hami_device_plugin import afresh, inventory
from hami_device_plugin.afresh import StartAfresh
from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.config import Config
from hami_device_plugin.daemon import Daemon
from hami_device_plugin.hostfiles import HostFiles
from hami_device_plugin.kubelet_side import SOCKET_FOLDER
from hami_device_plugin.mig import Divisions
from hami_device_plugin.settings import Settings
from hami_device_plugin.settings_files import SettingsFiles, load
from hami_device_plugin.uninstall import Uninstaller
from hamikit import logs
from hamikit.codec import encode_register
from hamikit.deviceconfig import ConfigError
from hamikit.gpu import GpuError, Nvml
from hamikit.service import Lifecycle, serve, status_app

log = structlog.get_logger()

LOOK_S = 5.0


def main() -> int:
    """Run until a signal; 2 for a configuration that cannot be used, 1 for a fault."""
    config = Config.parse(sys.argv[1:], os.environ)
    logs.configure(config.log_level)
    try:
        read = partial(load, config.device_config_file, config.node_config_file, config.node_name)
        settings = read()
        if config.once:
            return once(Nvml(config.driver_root, sys_root=config.sys_root), settings)
        if config.uninstall:
            return uninstall(config)
        told = {key: str(value) for key, value in asdict(config).items()}
        log.info("starting", version=version("hami-device-plugin"), **told)
        files = SettingsFiles(read, config.device_config_file, config.node_config_file)
        asyncio.run(_serve(config, settings, files))
    except (ConfigError, GpuError) as error:
        print(f"hami-device-plugin: {error}", file=sys.stderr)
        return 2
    except StartAfresh as cause:
        afresh.start(cause, os.environ)
        print(f"hami-device-plugin: {cause}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"hami-device-plugin: {error}", file=sys.stderr)
        return 1
    return 0


def once(nvml: Nvml, settings: Settings) -> int:
    """Print what would be announced, and change nothing."""
    cards, handles = nvml.cards(), nvml.handles()
    divisions = Divisions(nvml.open, lambda: settings.mig_groups).look(handles)
    devices = inventory.announced(cards, settings, divisions=divisions)
    print(encode_register(devices))
    print(f"{sum(device.count for device in devices)} slots of {settings.family.count}")
    return 0


def uninstall(config: Config) -> int:
    """Look until told to end: a DaemonSet's pod must not end by itself."""
    # Slow to import, and the plugin itself is to tell kubelet first.
    from hamikit.cluster import Api, ApiError, Unreachable  # noqa: PLC0415

    files = HostFiles(config.vgpu_dir)
    cdi = CdiFiles(config.cdi_dirs, config.cdi_dynamic_dir)
    sockets = config.plugin_dir / SOCKET_FOLDER
    api = Api.from_environment()
    remover = Uninstaller(api, config.node_name, files, cdi, sockets=sockets, now=time.time)
    lifecycle = Lifecycle()
    lifecycle.stop_on_signals()
    said: list[str] | None = None
    while not lifecycle.stopping.is_set():
        try:
            staying = remover.look()
        except (ApiError, Unreachable) as error:
            staying = [f"cannot look: {error}"]
        if staying != said:
            print("\n".join(staying) or f"node {config.node_name} is clean", flush=True)
        said = staying
        lifecycle.stopping.wait(LOOK_S)
    return 0


async def _serve(config: Config, settings: Settings, files: SettingsFiles) -> None:
    nvml = Nvml(config.driver_root, sys_root=config.sys_root)
    daemon = Daemon(config, settings, nvml, files=files)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = status_app(daemon.lifecycle, daemon.metrics.registry)
    serve(app, config.status_host, config.status_port)
    await daemon.run(stop)


if __name__ == "__main__":
    sys.exit(main())
