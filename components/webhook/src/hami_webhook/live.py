"""The rules in force: device-config.yaml, read anew whenever it changes, the last good one kept."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from hami_webhook.rules import Rules
from hamikit.configcheck import check
from hamikit.deviceconfig import ConfigError, load_families

log = structlog.get_logger()


def read_rules(path: str, base: Rules, *, ascend: bool = False) -> Rules:
    """The rules that a file sets; `ascend`: whether the chips under `vnpus:` count.

    Raises:
        ConfigError: with every fault of the file, one in a line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path}: {error}; give a readable device-config.yaml") from error
    checked = check(text)
    if checked.faults:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in checked.faults))
    for warning in checked.warnings:
        log.warning("device configuration", file=path, line=warning.line, odd=warning.text)
    return replace(base, families=load_families(path, ascend=ascend, read=lambda _: text))


class LiveRules:
    """`rules` are those of the file's last good state; without a file those of `base` for ever.

    `report` is told of every change: the new faults, or an empty text once all is well again.
    """

    def __init__(
        self,
        path: str | None,
        base: Rules,
        report: Callable[[str], None] = lambda _: None,
        *,
        ascend: bool = False,
    ) -> None:
        self._path, self._base, self._report, self._ascend = path, base, report, ascend
        self._seen = _stamp(path)
        self.rules = read_rules(path, base, ascend=ascend) if path else base
        self.fault: str | None = None
        """What is wrong with the file as it is now; None when it is in force."""

    def refresh(self) -> None:
        """Read the file if it changed since the last look."""
        stamp = _stamp(self._path)
        if not self._path or stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.rules = read_rules(self._path, self._base, ascend=self._ascend)
        except ConfigError as error:
            self.fault = str(error)
            log.warning("device configuration refused, the last good holds", error=self.fault)
            self._report(self.fault)
        else:
            self.fault = None
            log.info("device configuration loaded", file=self._path)
            self._report("")


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    """What changes when a file does; None when there is none."""
    try:
        status = os.stat(path) if path else None
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns) if status else None
