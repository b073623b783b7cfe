"""Control and usage files read warily.

A tenant owns what stands in a usage file, so it is opened without following links, checked and
read, never mapped: a mapped file that somebody truncates is a SIGBUS.
"""

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hamikit.region_layout import (
    CONTROL_SIZE,
    LOCK_BASE,
    MAX_SLOTS,
    USAGE_SIZE,
    live_slots,
    newest_activity,
    parse_control,
    parse_living,
    parse_usage,
    said_of,
    size_of,
)
from hamikit.region_values import Control, RegionError, Usage

_FLOCK: Final = struct.Struct("hhqqi0q")  # struct flock of a 64-bit Linux
_UNLOCKED: Final = struct.pack("h", fcntl.F_UNLCK)
"""How the answer begins where nobody holds the lock."""


@contextmanager
def open_wary(path: Path, access: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of a regular file that a tenant may have put there, reached through no link.

    FileNotFoundError when it is not there, RegionError when it is something else.
    """
    fd = _open_wary(path, access)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_wary(path: Path, access: int, size: int | None = None) -> int:
    try:
        fd = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RegionError(f"{path} cannot be opened: {error.strerror}") from error
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and size in (None, found.st_size):
        return fd
    os.close(fd)
    if not stat.S_ISREG(found.st_mode):
        raise RegionError(f"{path} is no regular file")
    raise RegionError(f"{path} has {found.st_size} bytes instead of {size}")


@contextmanager
def open_sized(path: Path, size: int, access: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of a regular file of `size` bytes, reached through no link and no pipe."""
    fd = _open_wary(path, access, size)
    try:
        yield fd
    finally:
        os.close(fd)


def read_file(path: Path, size: int) -> bytes:
    """The bytes of a file that a tenant may have tampered with.

    Follows no link, waits for no pipe, maps nothing. FileNotFoundError when it is not there,
    RegionError when it is something else than a regular file of `size` bytes.
    """
    with open_sized(path, size) as fd:
        return os.pread(fd, size, 0)


def read_control(path: Path, tries: int = 3) -> Control:
    """The grant in force in a control file; reads again when a change was caught half way."""
    for left in range(tries - 1, -1, -1):
        data = read_file(path, CONTROL_SIZE)
        try:
            return parse_control(data)
        except RegionError as error:
            if not left:
                raise RegionError(f"{path}: {error}") from error
    raise RegionError(f"{path}: tries must be at least 1")


def _query(first: int, count: int) -> bytes:
    return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, LOCK_BASE + first, count, 0)


_SLOT_QUERIES: Final = tuple(_query(slot, 1) for slot in range(MAX_SLOTS))
_REACHES: Final = tuple((n, _query(n, MAX_SLOTS - n)) for n in (8, 16, 32, 64, 128))


def _held(fd: int, query: bytes) -> bool:
    """Whether a process holds such a lock, which the kernel drops when the process ends."""
    return fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query)[: len(_UNLOCKED)] != _UNLOCKED


def _reach(fd: int) -> int:
    """How many slots one has to read to see every process: limiters take the first free one."""
    return next((slots for slots, beyond in _REACHES if not _held(fd, beyond)), MAX_SLOTS)


def read_usage(path: Path) -> Usage:
    """The tenant's account in a usage file, without processes that have ended.

    The slot of a killed process stays charged until a neighbour clears it; here it does not count.
    RegionError names the file and what is wrong.
    """
    with open_sized(path, USAGE_SIZE) as fd:
        try:
            usage = parse_usage(os.pread(fd, USAGE_SIZE, 0))
        except RegionError as error:
            raise RegionError(f"{path}: {error}") from error
        gone = (p.slot for p in usage.processes if not _held(fd, _SLOT_QUERIES[p.slot]))
        return usage.without(gone)


class Living:
    """Reads a container's account for its living processes alone, again and again.

    It reads as little of the file as shows them all, and parses that only where it says something
    else than at the last reading. What `devices` say is not read.
    """

    def __init__(self) -> None:
        self._said: tuple[bytes, ...] = ()
        self._usage: Usage | None = None

    def read(self, path: Path) -> Usage:
        """The same object as at the last reading while nothing but the processes' activity changed.

        FileNotFoundError, RegionError as `read_usage`.
        """
        fd = _open_wary(path, os.O_RDONLY, USAGE_SIZE)
        try:
            reach = _reach(fd)
            data = os.pread(fd, size_of(reach), 0)
            living = [slot for slot in live_slots(data) if _held(fd, _SLOT_QUERIES[slot])]
        finally:
            os.close(fd)
        said = said_of(data, living)
        if self._usage is None or said != self._said:
            try:
                self._usage = parse_living(data, living, reach)
            except RegionError as error:
                raise RegionError(f"{path}: {error}") from error
            self._said = said
        return self._usage


class Activity:
    """When the processes of a container last launched or allocated something.

    Cheap to ask often: only the slots in use are read, and how many these are is found by a scan.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slots = MAX_SLOTS

    def newest_ns(self, *, scan: bool) -> int:
        """Unix time in nanoseconds, 0 when nothing was seen; `scan` looks for new processes too.

        FileNotFoundError, RegionError as `read_usage`.
        """
        fd = _open_wary(self._path, os.O_RDONLY, USAGE_SIZE)
        try:
            if scan:
                self._slots = _reach(fd)
            return newest_activity(os.pread(fd, size_of(self._slots), 0))
        finally:
            os.close(fd)
