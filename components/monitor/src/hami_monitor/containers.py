"""The containers of this node: control and usage files, joined with the pods they belong to."""

import errno
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

from hamikit import names
from hamikit.objects import ContainerStatus, Pod
from hamikit.region import (
    CONTROL_SIZE,
    USAGE_SIZE,
    Control,
    RegionError,
    Usage,
    read_control,
    read_usage,
)

log = structlog.get_logger()

T = TypeVar("T")

_REASONS: Final = {errno.ELOOP: "link", errno.ENXIO: "not_a_file", errno.EACCES: "permission"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One container; a file that could not be read is None."""

    namespace: str
    pod: str
    container: str
    control: Control | None
    usage: Usage | None


class Unreadable:
    """How often a control or usage file could not be read, by (file, reason); thread-safe.

    `containers` stands for the folder of them all. Reasons: missing, link, not_a_file, size,
    content, permission, io.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def add(self, file: str, reason: str) -> None:
        """Count one failed reading."""
        with self._lock:
            self._counts[file, reason] += 1

    def counts(self) -> dict[tuple[str, str], int]:
        """Counts so far."""
        with self._lock:
            return dict(self._counts)


def read_containers(root: Path, pods: Iterable[Pod], unreadable: Unreadable) -> Iterator[Reading]:
    """Every container of `pods` that has a folder `<pod UID>_<container>` below `root`.

    Containers that do not run (any more, or between two starts) are left out: their account is
    stale. So are folders of pods we do not know: they have no name to be reported under. No file
    below `root` can make this fail.
    """
    by_uid = {pod.metadata.uid: pod for pod in pods if not pod.terminal}
    for folder in _folders(root, unreadable):
        uid, _, container = folder.name.partition("_")
        pod = by_uid.get(uid)
        if pod is None or not _wanted(pod, container):
            continue
        control = _read(folder / names.CONTROL_NAME, read_control, CONTROL_SIZE, unreadable)
        usage = _read(folder / names.USAGE_NAME, read_usage, USAGE_SIZE, unreadable)
        if control is None and usage is None:
            continue
        yield Reading(pod.metadata.namespace, pod.metadata.name, container, control, usage)


def _folders(root: Path, unreadable: Unreadable) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []  # nothing was granted on this node yet
    except OSError as error:
        unreadable.add(root.name, _REASONS.get(error.errno or 0, "io"))
        log.warning("containers cannot be listed", folder=str(root), error=str(error))
        return []


def _wanted(pod: Pod, container: str) -> bool:
    if all(c.name != container for c in pod.all_containers):
        return False
    status = _statuses(pod).get(container)
    state = status.state if status is not None else None
    return state is None or (state.waiting is None and state.terminated is None)


def _statuses(pod: Pod) -> Mapping[str, ContainerStatus]:
    status = pod.status
    every = (*(status.init_container_statuses or ()), *(status.container_statuses or ()))
    return {s.name: s for s in every}


def _read(path: Path, read: Callable[[Path], T], size: int, unreadable: Unreadable) -> T | None:
    try:
        return read(path)
    except FileNotFoundError:
        # A folder that vanished meanwhile is a container that ended: nothing odd.
        if path.parent.is_dir():
            unreadable.add(path.name, "missing")
    except (RegionError, OSError) as error:
        unreadable.add(path.name, reason_of(path, error, size))
        log.debug("file cannot be read", path=str(path), error=str(error))
    return None


def reason_of(path: Path, error: Exception, size: int) -> str:
    """One word for why a file that should have `size` bytes was refused."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError):
        return _REASONS.get(cause.errno or 0, "io")
    try:
        status = os.lstat(path)
    except OSError:
        return "missing"  # gone since it was refused
    if not stat.S_ISREG(status.st_mode):
        return "not_a_file"
    return "content" if status.st_size == size else "size"
