"""The operator's files: read at start, and again whenever they change."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from hami_device_plugin.settings import Settings, cluster_settings, node_settings
from hamikit.deviceconfig import ConfigError, load_section

log = structlog.get_logger()

EVERY_S = 5.0


def load(device_config_file: str | None, node_config_file: str | None, node: str) -> Settings:
    """The settings of a node; a file of single nodes need not be there.

    Raises:
        ConfigError: a file that cannot be used.
    """
    settings = Settings()
    if device_config_file:
        settings = cluster_settings(load_section(device_config_file))
    if node_config_file:
        try:
            text = Path(node_config_file).read_text(encoding="utf-8")
        except FileNotFoundError:
            return settings
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{node_config_file}: {error}") from error
        settings = node_settings(settings, text, node)
    return settings


Stamp = tuple[tuple[int, int, int] | None, ...]


class SettingsFiles:
    """Notices that one of the files was replaced or written to."""

    def __init__(self, read: Callable[[], Settings], *paths: str | None) -> None:
        self._read, self._paths = read, [Path(path) for path in paths if path]
        self._stamp = self._look()
        self.fault: str | None = None
        """Why the files cannot be used as they are now."""

    def changed(self) -> Settings | None:
        """The settings, when the files changed since the last time and can be used."""
        stamp = self._look()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            settings = self._read()
        except ConfigError as error:
            self.fault = str(error)
            log.warning("settings cannot be used, the older ones stay", error=self.fault)
            return None
        self.fault = None
        return settings

    async def follow(self, adopt: Callable[[Settings], None]) -> None:
        """Have other settings adopted while we run; never ends by itself."""
        while True:
            await asyncio.sleep(EVERY_S)
            found = await asyncio.to_thread(self.changed)
            if found is not None:
                await asyncio.to_thread(adopt, found)

    def _look(self) -> Stamp:
        return tuple(map(_stamp, self._paths))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # a file that is not there is a state, too
    return status.st_mtime_ns, status.st_ino, status.st_size
