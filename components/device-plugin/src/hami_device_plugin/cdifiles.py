"""CDI files on disk: the node's own are read, ours are written whole or not at all."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hami_device_plugin.cdi import CdiError, NodeSpec, node_spec
from hamikit import names

log = structlog.get_logger()

TEMPORARY = ".tmp"
SUFFIXES = (".json", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a file said when it had this time, size and inode; or why it cannot be used."""

    stamp: tuple[int, int, int]
    spec: NodeSpec | None = None
    fault: str | None = None


class CdiFiles:
    """The runtime's CDI folders, lowest priority first, and the one that our specs go to.

    `on_new` hears of each spec that the runtime is about to see: its name, and the file.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        dynamic: Path,
        on_new: Callable[[str, Path], None] = lambda _name, _path: None,
    ) -> None:
        self._folders, self._dynamic, self._on_new = folders, dynamic, on_new
        # A spec of eight cards takes most of a second to parse, so it is kept until it changes.
        self._kept: dict[Path, _Kept] = {}

    def node_specs(self) -> list[NodeSpec]:
        """The node's own specifications of NVIDIA cards, lowest priority first."""
        self._kept = {path: kept for path in self._paths() if (kept := self._read(path))}
        return [kept.spec for kept in self._kept.values() if kept.spec is not None]

    def faults(self) -> list[str]:
        """Why some files could not be used at the last look, a sentence each."""
        return [kept.fault for kept in self._kept.values() if kept.fault is not None]

    def _paths(self) -> Iterator[Path]:
        for folder in self._folders:
            # Names before paths: most of them are our own, one for each container of the node.
            for name in sorted(_listed(folder)):
                if name.endswith(SUFFIXES) and not name.startswith(names.CDI_FILE_PREFIX):
                    yield folder / name

    def _read(self, path: Path) -> _Kept | None:
        try:
            status = path.stat()
        except OSError:
            return None  # gone meanwhile, or a link that leads nowhere
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        kept = self._kept.get(path)
        return kept if kept and kept.stamp == stamp else _parsed(path, stamp)

    def write(self, name: str, document: Mapping[str, Any]) -> bool:
        """Put one of our specs in place; whether this changed anything on disk."""
        return self._put(
            self._path(name), document, lambda temporary: self._on_new(name, temporary)
        )

    def publish(self, document: Mapping[str, Any] | None) -> None:
        """Have the runtime know the MIG instances that were made by hand; None: there are none."""
        path = self._dynamic / names.CDI_FILE_MIG
        if document is None:
            path.unlink(missing_ok=True)
        else:
            self._put(path, document, lambda _temporary: None)

    def _put(self, path: Path, document: Mapping[str, Any], on_new: Callable[[Path], None]) -> bool:
        data = json.dumps(document, indent=1).encode()
        try:
            if path.read_bytes() == data:
                return False
        except FileNotFoundError:
            log.debug("new CDI spec", path=str(path))
        # Same folder, and a suffix that the runtime does not read: what it sees is the rename.
        temporary = path.with_suffix(TEMPORARY)
        with naming(temporary), temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
        on_new(temporary)
        temporary.rename(path)
        return True

    def remove(self, name: str) -> None:
        """Take one of our specs away; harmless when it is not there."""
        self._path(name).unlink(missing_ok=True)

    def ours(self) -> dict[str, float]:
        """The names of our specs and when each was written (Unix seconds)."""
        found: dict[str, float] = {}
        for path in self._dynamic.glob(f"{names.CDI_FILE_PREFIX}*.json"):
            try:
                found[path.stem.removeprefix(names.CDI_FILE_PREFIX)] = path.stat().st_mtime
            except FileNotFoundError:
                continue  # gone meanwhile
        return found

    def remove_halves(self, old: float) -> None:
        """Remove what a killed plugin left half written before `old` (Unix seconds)."""
        remove_temporaries(self._dynamic, names.CDI_FILE_PREFIX, old)

    def _path(self, name: str) -> Path:
        return self._dynamic / f"{names.CDI_FILE_PREFIX}{name}.json"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error name the path it is about: a full disk is told by `write`, which does not.

    Raises:
        OSError: with the path.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def remove_temporaries(folder: Path, prefix: str, old: float) -> None:
    """Remove temporary files of this prefix that were written before `old` (Unix seconds)."""
    for path in folder.glob(f"{prefix}*{TEMPORARY}"):
        if path.stat().st_mtime < old:
            path.unlink(missing_ok=True)


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _parsed(path: Path, stamp: tuple[int, int, int]) -> _Kept:
    try:
        return _Kept(stamp, node_spec(str(path), _load(path)))
    except CdiError as error:
        fault = str(error)
    except (OSError, ValueError, YAMLError, RecursionError) as error:
        fault = f"{path} cannot be read: {' '.join(str(error).split())}"
    # The runtime skips such a file too; it may well be about somebody else's devices.
    log.warning("CDI file cannot be used", path=str(path), error=fault)
    return _Kept(stamp, fault=fault)


def _load(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    # As the runtimes read it, in Go: 0660 is octal, `no` is false.
    yaml = YAML(typ="safe")
    yaml.version = (1, 1)
    return yaml.load(text)
