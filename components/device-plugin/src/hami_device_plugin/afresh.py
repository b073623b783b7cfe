"""The plugin started afresh, for what it found and cannot mend from within."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

log = structlog.get_logger()

SOONEST_S = 60.0
"""Who starts afresh sooner than this after the last time leaves the pause to kubelet."""
_LAST, STDERR = "HAMI_STARTED_AFRESH", 2


class StartAfresh(Exception):
    """The text says why."""


class Forgotten(StartAfresh):
    """kubelet has dropped this plugin without a word."""


class DriverReplaced(StartAfresh):
    """The driver is another one than the one that this process has loaded."""


class SettingsChanged(StartAfresh):
    """Settings that kubelet is told at registration."""


def start(
    cause: StartAfresh,
    environ: Mapping[str, str],
    *,
    now: Callable[[], float] = time.monotonic,
    execute: Callable[[str, list[str], Mapping[str, str]], object] = os.execve,
) -> None:
    """Become the program once more, in place; returns where that was done a moment ago.

    To a container that ends kubelet may give the node's cards back only minutes later, and fails
    pods meanwhile.
    """
    last = float(environ.get(_LAST, "-inf"))
    if now() < last + SOONEST_S:
        return
    log.warning("starting afresh", why=str(cause))
    sys.stdout.flush()
    sys.stderr.flush()
    # A driver's files that stay open keep it from being unloaded, and who opened them may not have
    # marked them. Only marked, not closed: other threads are still at work with theirs.
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the folder's own is closed by now
            os.set_inheritable(number, number <= STDERR)
    execute(sys.executable, sys.orig_argv, {**environ, _LAST: str(now())})
