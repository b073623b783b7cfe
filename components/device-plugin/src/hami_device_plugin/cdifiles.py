"""CDI files on disk: the node's own are read, ours are written whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hami_device_plugin.cdi import CdiError, NodeSpec, node_spec
from hamikit import names

log = structlog.get_logger()

TEMPORARY = ".tmp"


class CdiFiles:
    """The runtime's CDI folders, lowest priority first, and the one that our specs go to."""

    def __init__(self, folders: Sequence[Path], dynamic: Path) -> None:
        self._folders, self._dynamic = folders, dynamic
        # A spec of eight cards takes most of a second to parse, so it is kept until it changes.
        self._parsed: dict[Path, tuple[tuple[int, int, int], NodeSpec | None]] = {}

    def node_specs(self) -> list[NodeSpec]:
        """The node's own specifications of NVIDIA cards, lowest priority first."""
        found: list[NodeSpec] = []
        for folder in self._folders:
            for path in sorted(folder.glob("*")):
                if path.suffix not in (".json", ".yaml", ".yml") or _is_ours(path):
                    continue
                spec = self._read(path)
                if spec is not None:
                    found.append(spec)
        return found

    def _read(self, path: Path) -> NodeSpec | None:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            kept = self._parsed.get(path)
            if kept is None or kept[0] != stamp:
                kept = self._parsed[path] = (stamp, node_spec(str(path), _load(path)))
        except (OSError, ValueError, YAMLError, CdiError) as error:
            # The runtime skips such a file too; it may well be about somebody else's devices.
            log.warning("CDI file cannot be used", path=str(path), error=str(error))
            return None
        return kept[1]

    def write(self, name: str, document: Mapping[str, Any]) -> bool:
        """Put one of our specs in place; whether this changed anything on disk."""
        path = self._path(name)
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


def _is_ours(path: Path) -> bool:
    return path.name.startswith(names.CDI_FILE_PREFIX)


def _load(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else YAML(typ="safe").load(text)
