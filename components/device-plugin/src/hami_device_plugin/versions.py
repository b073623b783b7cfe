"""Versions of the limiter on a node: what no container needs for its next start is removed."""

import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from hamikit import names

log = structlog.get_logger()

# hami-core puts a version down before `current` leads to it, and an operator may go back to one.
GRACE_S = 3600.0


def remove_unused(root: Path, used: Callable[[], Collection[str]], old: float) -> list[str]:
    """Remove versions that are not in use and were delivered before `old` (Unix seconds).

    `used` is asked only when there is something to remove. A container that runs keeps what it has
    mounted in any case; a version in use is one that its next start needs.
    """
    with _alone(root) as alone:
        current = _current(root)
        if not alone or not current:
            return []
        candidates = [path for path in _versions(root) if path.name != current and _age(path) < old]
        kept = used() if candidates else ()
        return [path.name for path in candidates if path.name not in kept and _remove(path)]


@contextmanager
def _alone(root: Path) -> Iterator[bool]:
    """Whether hami-core's installer leaves the folder to us; it holds the same lock."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(folder)


def _current(root: Path) -> str:
    try:
        return os.path.basename(os.readlink(root / names.CURRENT_NAME))
    except OSError:
        return ""  # without it nobody could tell what is old


def _versions(root: Path) -> list[Path]:
    """Folders whose name begins with a digit: only versions do."""
    found = (path for path in root.iterdir() if path.name[0].isdigit())
    return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def _age(path: Path) -> float:
    return path.stat().st_mtime


def _remove(path: Path) -> bool:
    try:
        for name in (names.PRELOAD_NAME, names.LIB_NAME):
            (path / name).unlink(missing_ok=True)
        path.rmdir()
    except OSError as error:
        log.warning("version of the limiter not removed", path=str(path), error=str(error))
        return False
    log.info("version of the limiter removed, nothing uses it", version=path.name)
    return True
