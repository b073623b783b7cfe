"""The processes that belong to a state folder, found and ended without trusting process ids."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from e2e.lab.errors import LabError
from e2e.lab.programs import OWNER


def carries(environ: bytes, owner: Path) -> bool:
    """Whether a process with this environment block was started for the state folder."""
    return f"{OWNER}={owner}".encode() in environ.split(b"\0")


def _is_ours(pid: int, owner: Path, proc: Path) -> bool:
    try:
        return carries((proc / str(pid) / "environ").read_bytes(), owner)
    except OSError:  # ended, or another user's: not ours
        return False


def owned(owner: Path, proc: Path = Path("/proc")) -> Iterator[int]:
    """Ids of the running processes that were started for the state folder, ourselves excepted."""
    for entry in os.listdir(proc):
        if entry.isdigit() and int(entry) != os.getpid() and _is_ours(int(entry), owner, proc):
            yield int(entry)


def end_all(
    owner: Path,
    *,
    patience_s: float = 20,
    proc: Path = Path("/proc"),
    now: Callable[[], float] = time.monotonic,
) -> int:
    """Kills every process of the state folder and waits until none is left; returns how many.

    Raises:
        LabError: some do not end, which a hung disk or a frozen cgroup may cause.
    """
    deadline = now() + patience_s
    ended = 0
    while pids := list(owned(owner, proc)):
        if now() > deadline:
            raise LabError(
                f"these processes of {owner} do not end: {pids}; look at /proc/PID/stack"
            )
        ended += sum(_end(pid, owner, proc, deadline - now()) for pid in pids)
    return ended


def _end(pid: int, owner: Path, proc: Path, patience_s: float) -> bool:
    # The descriptor pins the process: should the id be used anew, the signal reaches nobody.
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not _is_ours(pid, owner, proc):
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
        waiter = select.poll()
        waiter.register(process, select.POLLIN)
        return bool(waiter.poll(max(patience_s, 0) * 1000))
    except ProcessLookupError:
        return False
    finally:
        os.close(process)
