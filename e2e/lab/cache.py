"""Built parts in a folder outside the checkout, each keyed by a hash of what it is made from."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.console import Console
from e2e.lab.errors import LabError
from e2e.lab.programs import Programs

KEY_LENGTH = 16
KEPT = 3
"""Parts of one name that are kept: this checkout's, and those of two others used last."""


def digest(inputs: Iterable[str | Path]) -> str:
    """A hash of texts and of files; a folder counts with the names and contents in it."""
    total = hashlib.sha256()
    for item in inputs:
        for label, content in _contents(item):
            for piece in (label.encode(), content):
                total.update(len(piece).to_bytes(8, "big"))
                total.update(piece)
    return total.hexdigest()[:KEY_LENGTH]


def _contents(item: str | Path) -> Iterator[tuple[str, bytes]]:
    if isinstance(item, str):
        yield "", item.encode()
    elif item.is_dir():
        for path in sorted(item.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(item)), path.read_bytes()
    else:
        yield item.name, item.read_bytes()


@dataclass(frozen=True, slots=True)
class Work:
    """What a build has at hand.

    Attributes:
        out: an empty folder to fill.
        run: runs a program, output to the part's log.
        path: where a part that this one needs lies.
    """

    out: Path
    run: Callable[..., None]
    path: "Callable[[Part], Path]"


@dataclass(frozen=True, slots=True)
class Part:
    """Something to build.

    Attributes:
        name: for people and as the start of the key.
        inputs: texts, files and folders that decide what comes out.
        build: makes it.
        needs: parts that must be there first; their keys count as inputs.
        waits_for: printed before a build that takes long.
    """

    name: str
    inputs: tuple[str | Path, ...]
    build: Callable[[Work], None]
    needs: "tuple[Part, ...]" = ()
    waits_for: str = ""

    @property
    def key(self) -> str:
        made_from = digest((*self.inputs, *(part.key for part in self.needs)))
        return f"{self.name.lower().replace(' ', '-')}-{made_from}"


class Cache:
    """Hands out built parts, building what is missing."""

    def __init__(self, root: Path, owner: Path, console: Console) -> None:
        self._root = root
        self._owner = owner
        self._console = console

    def path(self, part: Part) -> Path:
        """Where the part lies once it is built."""
        return self._root / "parts" / part.key

    def has(self, part: Part) -> bool:
        return self.path(part).is_dir()

    def get(self, part: Part) -> Path:
        """The part's folder; built now where it is missing.

        A part appears under its name by one rename, so a run that was killed leaves none half
        made.
        """
        done = self.path(part)
        if done.is_dir():
            os.utime(done)
            return done
        for needed in part.needs:
            self.get(needed)
        with locked(self._root / "parts.lock"):
            if not done.is_dir():  # another run may have built it while we waited
                with self._console.step(part.name, part.waits_for):
                    self._build(part, done)
        return done

    def _build(self, part: Part, done: Path) -> None:
        log = self._root / "logs" / f"{part.key}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        work = self._root / "work"
        shutil.rmtree(work, ignore_errors=True)
        (work / "out").mkdir(parents=True)
        run = Programs(owner=self._owner, log=log).run
        part.build(Work(work / "out", run, self.path))
        done.parent.mkdir(parents=True, exist_ok=True)
        os.rename(work / "out", done)
        os.utime(done)
        shutil.rmtree(work)
        for old in self._superseded(part):
            shutil.rmtree(old)

    def _superseded(self, part: Part) -> list[Path]:
        """Parts of the same name, but for those used last."""
        same = [
            path
            for path in self.path(part).parent.iterdir()
            if path.name.rpartition("-")[0] == part.key.rpartition("-")[0]
        ]
        return sorted(same, key=lambda path: path.stat().st_mtime_ns, reverse=True)[KEPT:]


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds an exclusive lock that the kernel gives back when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise LabError(
                f"another run of the lab holds {path}: wait for it or end it."
            ) from error
        yield
