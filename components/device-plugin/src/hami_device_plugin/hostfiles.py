"""Our folder on the host: the delivered limiter, each container's files, and the pods' grants.

<vgpu>/current -> <version>                 delivered by hami-core
<vgpu>/containers/<uid>_<container>/        control and usage
<vgpu>/grants/<uid>.json                    root only: the grant a pod was admitted with
"""

import fcntl
import os
import re
import shutil
import struct
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog

from hami_device_plugin.cdi import HostPaths
from hami_device_plugin.cdifiles import TEMPORARY, naming, remove_temporaries
from hami_device_plugin.grant import PodGrant
from hami_device_plugin.versions import GRACE_S as VERSIONS_GRACE_S
from hami_device_plugin.versions import remove_unused
from hamikit import names
from hamikit.region import (
    LOCK_BASE,
    MAX_SLOTS,
    USAGE_SIZE,
    Control,
    RegionError,
    create_usage,
    read_control,
    update_control,
    write_control,
)

log = structlog.get_logger()

GRANTS_NAME, _KEPT = "grants", ".json"
_DIRECTORY = re.compile(r"([0-9a-zA-Z-]+)_(.+)")
# struct flock of 64-bit Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi4x")
_F_OFD_GETLK = 36


class NotDelivered(Exception):
    """hami-core has not put the limiter on this node yet."""


class HostFiles:
    """Everything below `<hook path>/vgpu`."""

    def __init__(self, vgpu_dir: Path) -> None:
        self._root = vgpu_dir
        self._containers = vgpu_dir / names.CONTAINERS_NAME
        self._grants = vgpu_dir / GRANTS_NAME

    def prepare(self) -> None:
        """Create the folders."""
        self._containers.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._grants.mkdir(parents=True, exist_ok=True, mode=0o700)

    def library(self, version: str = "") -> str:
        """The version of the limiter to use: the given one while it is there, else the current.

        Raises:
            NotDelivered: there is none yet.
        """
        if version and self._whole(version):
            return version
        try:
            current = os.path.basename(os.readlink(self._root / names.CURRENT_NAME))
        except OSError:
            current = ""
        if not current or not self._whole(current):
            raise NotDelivered(
                f"hami-core has not been delivered yet on this node: {self._root}/"
                f"{names.CURRENT_NAME} leads to no {names.LIB_NAME}; see the DaemonSet hami-core"
            )
        return current

    def remove_unused_versions(self, used: Collection[str], now: float) -> None:
        """Remove versions of the limiter that neither these nor the kept grants name."""

        def named() -> set[str]:
            # A plugin that is taking over from us may have kept some since.
            return {*used, *(grant.library for grant in self.load_grants())}

        remove_unused(self._root, named, now - VERSIONS_GRACE_S)

    def _whole(self, version: str) -> bool:
        folder = self._root / version
        return all((folder / name).is_file() for name in (names.LIB_NAME, names.PRELOAD_NAME))

    def paths(self, uid: str, container: str, version: str) -> HostPaths:
        """What is mounted into a container."""
        folder, library = self._folder(uid, container), self._root / version
        return HostPaths(
            folder=str(folder),
            library=str(library / names.LIB_NAME),
            preload=str(library / names.PRELOAD_NAME),
            control=str(folder / names.CONTROL_NAME),
            usage=str(folder / names.USAGE_NAME),
        )

    def put_limits(self, uid: str, container: str, wanted: Control) -> None:
        """Put a container's limits in force and see to its usage file.

        What the monitor set in the control file stays while the limits are the same. RegionError
        when the limits cannot be written in this form.
        """
        folder = self._folder(uid, container)
        with naming(folder):
            self._put_limits(folder, wanted)

    def _put_limits(self, folder: Path, wanted: Control) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        path = folder / names.CONTROL_NAME
        try:
            present = read_control(path).devices
        except FileNotFoundError:
            present = ()
        except RegionError as error:
            # Only root writes here, so this is a crash or an older layout: start afresh.
            log.warning("control file is replaced", path=str(path), error=str(error))
            path.unlink()
            present = ()
        if not present:
            write_control(path, wanted, prepare=_open_to_monitor)
        elif present != wanted.devices:
            update_control(path, lambda now: _kept(now, wanted))
        _open_to_monitor(path)
        create_usage(folder / names.USAGE_NAME)
        # The folder itself is mounted, read-only: there the library's mount needs a place to be.
        (folder / names.LIB_NAME).touch(mode=0o444)

    def trim_usage(self) -> None:
        """Cut usage files back to their size: a tenant may write to them, and this is our disk."""
        for path in self._containers.glob(f"*_*/{names.USAGE_NAME}"):
            try:
                if path.lstat().st_size > USAGE_SIZE:
                    os.truncate(path, USAGE_SIZE)
                    log.warning("usage file was grown by its container", path=str(path))
            except FileNotFoundError:
                continue  # swept meanwhile

    def in_use(self, uid: str, containers: Iterable[str] | None = None) -> bool:
        """Whether a process of these containers of a pod, or of any, has the limiter loaded still.

        Each such process holds a lock in its usage file that the kernel drops when it dies.
        """
        return any(map(_locked, self._usages(uid, containers)))

    def _usages(self, uid: str, containers: Iterable[str] | None) -> list[str]:
        """Their usage files; text, because a full node asks for hundreds at each start."""
        if containers is None:
            return [f"{folder}/{names.USAGE_NAME}" for folder in self._folders(uid, None)]
        return [f"{self._containers}/{uid}_{name}/{names.USAGE_NAME}" for name in containers]

    def _folders(self, uid: str, containers: Iterable[str] | None) -> list[Path]:
        """The folders of these containers; of all, without them, which takes a look at each."""
        if containers is not None:
            return [self._folder(uid, container) for container in containers]
        return [path for path in self._containers.glob(f"{uid}_*") if path.is_dir()]

    def _folder(self, uid: str, container: str) -> Path:
        return self._containers / f"{uid}_{container}"

    def load_grants(self, known: Collection[str] = ()) -> list[PodGrant]:
        """The grants of pods that were admitted and not swept yet, but for those known already."""
        found: list[PodGrant] = []
        for name in os.listdir(self._grants) if self._grants.is_dir() else ():
            if not name.endswith(_KEPT) or name.removesuffix(_KEPT) in known:
                continue
            path = self._grants / name
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=PodGrant))
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
                log.warning("a pod's kept grant cannot be read", path=str(path), error=str(error))
        return found

    def save_grant(self, grant: PodGrant) -> None:
        """Keep a pod's grant across restarts of this plugin."""
        path = self._grants / f"{grant.uid}.json"
        temporary = path.with_suffix(TEMPORARY)
        with naming(temporary), temporary.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(msgspec.json.encode(grant))
        temporary.rename(path)

    def forget(self, uid: str, containers: Iterable[str] | None = None) -> None:
        """Remove everything of a pod, whose containers with files are these if they are known."""
        for folder in self._folders(uid, containers):
            shutil.rmtree(folder, ignore_errors=True)
        (self._grants / f"{uid}.json").unlink(missing_ok=True)

    def remove_halves(self, old: float) -> None:
        """Remove what a killed plugin left half written before `old` (Unix seconds)."""
        remove_temporaries(self._grants, "", old)

    def remove_folders(self) -> None:
        """Remove our folders when they are empty; others' files stay, and so do their folders."""
        for folder in (self._containers, self._grants):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def known_pods(self) -> dict[str, float]:
        """The pods that have files here, and when the newest folder of each was made."""
        found: dict[str, float] = {}
        for folder in self._containers.glob("*_*"):
            match = _DIRECTORY.fullmatch(folder.name)
            # HAMi's own plugin keeps folders of the same name here; they have no control file.
            if match is None or not (folder / names.CONTROL_NAME).exists():
                continue
            found[match[1]] = max(found.get(match[1], 0.0), folder.stat().st_mtime)
        for path in self._grants.glob("*.json"):
            found.setdefault(path.stem, path.stat().st_mtime)
        return found


def _kept(present: Control, wanted: Control) -> Control:
    """What is wanted, with what the monitor has told the container meanwhile."""
    return replace(
        wanted,
        suspended=present.suspended,
        blocked=present.blocked,
        blocked_until_ns=present.blocked_until_ns,
        contended=present.contended,
    )


def _open_to_monitor(path: Path) -> None:
    """Let the monitor, which is not root, write its own fields; tenants have the file read-only."""
    try:
        os.chown(path, -1, names.CONTROL_GROUP)
        path.chmod(0o664)
    except PermissionError as error:
        log.warning("the monitor cannot tell this container anything", error=str(error))


def _locked(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, LOCK_BASE, MAX_SLOTS, 0)
        answer = _FLOCK.unpack(fcntl.fcntl(fd, _F_OFD_GETLK, question))
        return bool(answer[0] != fcntl.F_UNLCK)
    finally:
        os.close(fd)
