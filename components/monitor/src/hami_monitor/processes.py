"""Processes of the node, looked up once and remembered for as long as they live."""

import os
import select
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from hami_monitor.cgroups import Owner, owners

_READ: Final = 8192


@dataclass(frozen=True, slots=True)
class Process:
    """One process: `ns_pid` is its PID in its own, innermost namespace, `start_time` in ticks."""

    pid: int
    ns_pid: int
    start_time: int
    command: str
    owners: tuple[Owner, ...]


class Processes:
    """Tells about processes by PID; what is gone is left out.

    A descriptor per process (Linux 5.3) says when it ends, so that a living one costs nothing the
    second time. Without descriptors every look-up reads anew.
    """

    def __init__(
        self, proc: str = "/proc", *, open_process: Callable[[int], int] = os.pidfd_open
    ) -> None:
        self._proc, self._open = proc, open_process
        self._known: dict[int, Process] = {}
        self._descriptors: dict[int, int] = {}
        self._watched: dict[int, int] = {}  # PIDs by descriptor
        self._ended = select.epoll()

    def look_up(self, pids: Iterable[int]) -> dict[int, Process]:
        """What is known of these PIDs; all others are forgotten."""
        self._forget_ended()
        wanted = set(pids)
        for pid in self._known.keys() - wanted:
            self._forget(pid)
        met = {pid: self._meet(pid) for pid in wanted - self._known.keys()}
        return self._known | {pid: one for pid, one in met.items() if one is not None}

    def close(self) -> None:
        """Let go of all descriptors."""
        for pid in list(self._known):
            self._forget(pid)
        self._ended.close()

    def _forget_ended(self) -> None:
        for fd, _event in self._ended.poll(0):
            self._forget(self._watched[fd])

    def _forget(self, pid: int) -> None:
        self._known.pop(pid, None)
        fd = self._descriptors.pop(pid, None)
        if fd is not None:
            del self._watched[fd]
            self._ended.unregister(fd)
            os.close(fd)

    def _meet(self, pid: int) -> Process | None:
        # The descriptor first: then what is read is of the process that it will tell the end of.
        try:
            fd = self._open(pid)
        except OSError:
            return read_process(self._proc, pid)
        process = read_process(self._proc, pid)
        if process is None:
            os.close(fd)
            return None
        self._ended.register(fd, select.EPOLLIN)
        self._descriptors[pid], self._watched[fd], self._known[pid] = fd, pid, process
        return process


def read_process(proc: str, pid: int) -> Process | None:
    """What /proc says about a process; None when it is gone or has ended."""
    try:
        stat, status = _read(f"{proc}/{pid}/stat"), _read(f"{proc}/{pid}/status")
        cgroup = _read(f"{proc}/{pid}/cgroup")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may hold any character, parentheses too.
    command = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, _ns_pid(status, pid), int(fields[19]), command, owners(cgroup))


def _ns_pid(status: str, pid: int) -> int:
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return pid  # a kernel before 4.1


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _READ).decode(errors="replace")
    finally:
        os.close(fd)
