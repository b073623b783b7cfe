"""The control and usage files of a container on disk: created, changed in place, and read."""

import ctypes
import fcntl
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hamikit.region_layout import (
    BODY_AT,
    BODY_SIZE,
    CONTROL_MAGIC,
    CONTROL_SIZE,
    CONTROL_VERSION,
    EPOCH_AT,
    HEADER,
    LOCK_BASE,
    MAX_DEVICES,
    MAX_SLOTS,
    UNIT_BYTES,
    USAGE_MAGIC,
    USAGE_SIZE,
    USAGE_VERSION,
    check_header,
    host_at,
    pack_body,
    pack_control,
    pack_host,
    parse_control,
    parse_usage,
)
from hamikit.region_reading import (
    Activity,
    Living,
    open_sized,
    open_wary,
    read_control,
    read_file,
    read_usage,
)
from hamikit.region_values import (
    Control,
    ControlDevice,
    ControlFlag,
    CorePolicy,
    HostPid,
    Kind,
    OverheadPolicy,
    RegionError,
    Usage,
    UsageDevice,
    UsageProcess,
)

__all__ = [
    "CONTROL_MAGIC",
    "CONTROL_SIZE",
    "CONTROL_VERSION",
    "LOCK_BASE",
    "MAX_DEVICES",
    "MAX_SLOTS",
    "UNIT_BYTES",
    "USAGE_MAGIC",
    "USAGE_SIZE",
    "USAGE_VERSION",
    "Activity",
    "Control",
    "ControlDevice",
    "ControlFlag",
    "CorePolicy",
    "HostPid",
    "Kind",
    "Living",
    "OverheadPolicy",
    "RegionError",
    "Usage",
    "UsageDevice",
    "UsageProcess",
    "create_usage",
    "note_host_pids",
    "open_wary",
    "pack_control",
    "parse_control",
    "parse_usage",
    "read_control",
    "read_file",
    "read_usage",
    "update_control",
    "write_control",
]

_FUTEX_WAKE: Final = 1
_SYS_FUTEX: Final = {"x86_64": 202, "aarch64": 98}


def _replace(
    path: Path, image: bytes, mode: int, prepare: Callable[[Path], None] = lambda _: None
) -> None:
    """Create or replace a file so that nobody ever opens one that is half written or prepared.

    Without a sync, which may take long on a busy disk: after a crash of the node every container
    starts anew, and a file that is not whole is made anew then.
    """
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(image)
            file.flush()
            os.fchmod(fd, mode)
        prepare(Path(temporary))
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _wake_waiters(epoch: ctypes.c_uint32) -> None:
    number = _SYS_FUTEX.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None, use_errno=True).syscall(
            number, ctypes.byref(epoch), _FUTEX_WAKE, 0x7FFFFFFF, None, None, 0
        )


@contextmanager
def _writable(target: Path | int) -> Iterator[int]:
    fd = (
        target
        if isinstance(target, int)
        else os.open(target, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # one writer at a time; readers need no lock
        yield fd
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        if fd is not target:
            os.close(fd)


def write_control(
    target: Path | int, control: Control, *, prepare: Callable[[Path], None] = lambda _: None
) -> None:
    """Put a grant in force: creates the file (mode 0644), or changes it in place.

    In place because a bind mount holds the inode. `target` is a path, or a descriptor open for
    reading and writing, which stays open. `prepare` is given a new file before anybody else can
    see it: who watches the folder opens it at once.
    """
    if isinstance(target, Path) and not target.exists():
        _replace(target, pack_control(control), 0o644, prepare)
        return
    with _writable(target) as fd:
        check_header(os.pread(fd, CONTROL_SIZE, 0), CONTROL_MAGIC, CONTROL_VERSION, CONTROL_SIZE)
        _publish(fd, control)


def _publish(fd: int, control: Control) -> None:
    """Put a body in force in a well-formed file whose lock we hold."""
    with mmap.mmap(fd, CONTROL_SIZE) as mapped:
        word = ctypes.c_uint32.from_buffer(mapped, EPOCH_AT)
        epoch = (word.value + 1) & 0xFFFFFFFF
        start = BODY_AT + (epoch & 1) * BODY_SIZE
        try:
            mapped[start : start + BODY_SIZE] = pack_body(control, epoch)
            word.value = epoch  # one aligned store; the checksum catches who sees it early
            _wake_waiters(word)
        finally:
            del word  # the map cannot be closed while ctypes holds it


def create_usage(path: Path) -> None:
    """Create an empty usage file (mode 0666); a well-formed one is kept, with its charges."""
    try:
        check_header(read_file(path, USAGE_SIZE), USAGE_MAGIC, USAGE_VERSION, USAGE_SIZE)
    except (FileNotFoundError, RegionError):
        header = HEADER.pack(USAGE_MAGIC, USAGE_VERSION, USAGE_SIZE)
        _replace(path, header.ljust(USAGE_SIZE, b"\0"), 0o666)


def note_host_pids(path: Path, pids: Iterable[HostPid]) -> None:
    """Write into slots of a usage file which PIDs their processes have on the host.

    FileNotFoundError, RegionError as `read_usage`. Each is one aligned word that names its process,
    so nobody takes it for that of another one; nothing that the tenant wrote decides anything.
    """
    with open_sized(path, USAGE_SIZE, os.O_RDWR) as fd:
        for one in pids:
            if 0 <= one.slot < MAX_SLOTS:
                os.pwrite(fd, pack_host(one.pid, one.start_time), host_at(one.slot))


def update_control(path: Path, change: Callable[[Control], Control]) -> bool:
    """Change the grant in force, reading and writing under one lock; whether there was a change.

    Several programs own fields of this file. Each changes its own in what the file says at that
    moment, so that nobody puts back what another has just replaced.
    """
    with _writable(path) as fd:
        present = parse_control(os.pread(fd, CONTROL_SIZE, 0))
        wanted = change(present)
        if wanted == present:
            return False
        _publish(fd, wanted)
        return True
