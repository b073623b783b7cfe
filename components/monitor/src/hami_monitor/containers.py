"""The containers of this node: control and usage files, joined with the pods they belong to."""

import errno
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import structlog

from hami_monitor.accounts import Account, granted, hami_account, own_account
from hamikit import names
from hamikit.hami_region import HamiRegion, read_region
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

_MIRROR: Final = "kubernetes.io/config.mirror"
_REGION_SUFFIX: Final = ".cache"
_REGION_WORD: Final = "region"
_FOLDERS: Final = 1024
_LOOKED_AT: Final = 64
"""A container may fill its folder; nobody reads it all for that."""
_REASONS: Final = {errno.ELOOP: "link", errno.ENXIO: "not_a_file", errno.EACCES: "permission"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One container's files; what could not be read, or is not there, is None.

    `region` is the account of HAMi's own limiter, in containers from before a migration.
    """

    pod: Pod
    container: str
    control: Control | None = None
    usage: Usage | None = None
    region: HamiRegion | None = None

    @property
    def account(self) -> Account | None:
        """What it says; None where nothing tells which devices the numbers are about."""
        if self.control is not None:
            return own_account(self.control, self.usage)
        if self.region is not None:
            return hami_account(self.region, granted(self.pod, self.container))
        return None


class Unreadable:
    """How often a control or usage file could not be read, by (file, reason); thread-safe.

    `containers` stands for the folder of them all, `region` for HAMi's file. Reasons: missing,
    link, not_a_file, size, content, permission, io.
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


def pods_by_uid(pods: Iterable[Pod]) -> dict[str, Pod]:
    """Pods by every UID that a node knows them by, but for those that have ended.

    Kubelet knows a static pod by the hash of its manifest, the API server by its mirror's UID.
    """
    found: dict[str, Pod] = {}
    for pod in pods:
        if not pod.terminal:
            found[pod.metadata.uid] = pod
            found[pod.metadata.annotations.get(_MIRROR, pod.metadata.uid)] = pod
    return found


def read_containers(root: Path, pods: Iterable[Pod], unreadable: Unreadable) -> Iterator[Reading]:
    """Every container of `pods` that has a folder `<pod UID>_<container>` below `root`.

    Containers that do not run (any more, or between two starts) are left out: their account is
    stale. So are folders of pods we do not know: they have no name to be reported under. No file
    below `root` can make this fail.
    """
    for folder, pod, container in containers_of(root, pods, unreadable):
        reading = read_folder(folder, pod, container, unreadable)
        if reading is not None:
            yield reading


def containers_of(
    root: Path, pods: Iterable[Pod], unreadable: Unreadable
) -> Iterator[tuple[Path, Pod, str]]:
    """The folders of containers of `pods` that run, as far as one knows."""
    by_uid = pods_by_uid(pods)
    for folder in _folders(root, unreadable):
        uid, _, container = folder.name.partition("_")
        pod = by_uid.get(uid)
        if pod is not None and _wanted(pod, container):
            yield folder, pod, container


def is_foreign(folder: Path) -> bool:
    """Whether a folder is HAMi's: its container may write there, also what looks like ours.

    FileNotFoundError when it is gone.
    """
    return bool(folder.stat().st_mode & stat.S_IWOTH)


def read_folder(
    folder: Path,
    pod: Pod,
    container: str,
    unreadable: Unreadable,
    *,
    read: Callable[[Path], Usage] = read_usage,
) -> Reading | None:
    """One container's files, ours or HAMi's; None when none of them says anything."""
    try:
        if is_foreign(folder):
            return _read_foreign(folder, pod, container, unreadable)
    except FileNotFoundError:
        return None  # gone meanwhile: a container that ended
    control_path, usage_path = _files(folder)
    control = _read(control_path, read_control, CONTROL_SIZE, unreadable)
    usage = _read(usage_path, read, USAGE_SIZE, unreadable)
    if control is None and usage is None:
        return None
    return Reading(pod, container, control, usage)


@lru_cache(_FOLDERS)
def _files(folder: Path) -> tuple[Path, Path]:
    """Where the control and the usage file lie; paths are dear where they are made each second."""
    return folder / names.CONTROL_NAME, folder / names.USAGE_NAME


def _read_foreign(folder: Path, pod: Pod, container: str, unreadable: Unreadable) -> Reading | None:
    path = _region_path(folder)
    region = None if path is None else _read(path, read_region, None, unreadable)
    return None if region is None else Reading(pod, container, region=region)


def _region_path(folder: Path) -> Path | None:
    """HAMi's region: the `.cache` file that was written last; its container may make any others."""
    with os.scandir(folder) as entries:
        candidates = [
            (entry.stat(follow_symlinks=False).st_mtime_ns, entry.name)
            for entry in islice(entries, _LOOKED_AT)
            if entry.name.endswith(_REGION_SUFFIX) and names.LIB_NAME not in entry.name
        ]
    return folder / max(candidates)[1] if candidates else None


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


def _read(
    path: Path, read: Callable[[Path], T], size: int | None, unreadable: Unreadable
) -> T | None:
    # A region's name is its container's choice, and must not become a label.
    word = path.name if size is not None else _REGION_WORD
    try:
        return read(path)
    except FileNotFoundError:
        # A folder that vanished meanwhile is a container that ended: nothing odd.
        if path.parent.is_dir():
            unreadable.add(word, "missing")
    except (RegionError, OSError) as error:
        unreadable.add(word, reason_of(path, error, size))
        log.debug("file cannot be read", path=str(path), error=str(error))
    return None


def reason_of(path: Path, error: Exception, size: int | None) -> str:
    """One word for why a file that should have `size` bytes (None: any) was refused."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError):
        return _REASONS.get(cause.errno or 0, "io")
    try:
        status = os.lstat(path)
    except OSError:
        return "missing"  # gone since it was refused
    if not stat.S_ISREG(status.st_mode):
        return "not_a_file"
    return "content" if size is None or status.st_size == size else "size"
