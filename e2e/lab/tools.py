"""The part of a Debian tree that chosen programs need, for an image with nothing else in it."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from e2e.lab.errors import LabError
from e2e.lab.programs import ask

MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
"""Debian's merged /usr: the old folders are links."""

LOADER = "/lib64/ld-linux-x86-64.so.2"


def libraries(tree: Path, program: str) -> list[str]:
    """The shared libraries that the tree's own loader finds for a program of the tree."""
    listing = ask("chroot", str(tree), LOADER, "--list", program)
    return re.findall(r"(/\S+) \(0x", listing or "")


@dataclass
class Closure:
    """Collects files with what they link to; `files` and `links` are what it found.

    Args:
        tree: the Debian tree.
        needs: answers which libraries a program needs.
    """

    tree: Path
    needs: Callable[[Path, str], Iterable[str]] = libraries
    files: dict[str, Path] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=lambda: dict(MERGED))

    def add(self, path: str) -> None:
        """Adds one absolute path of the tree, and all it needs."""
        top, _, rest = path.strip("/").partition("/")
        name = f"{MERGED.get(top, top)}/{rest}"
        if name in self.files or name in self.links:
            return
        here = self.tree / name
        if here.is_symlink():
            target = os.readlink(here)
            self.links[name] = target
            self.add(os.path.normpath(os.path.join("/", os.path.dirname(name), target)))
        elif here.is_file():
            self.files[name] = here
            with here.open("rb") as content:
                is_elf = content.read(4) == b"\x7fELF"
            for library in self.needs(self.tree, f"/{name}") if is_elf else ():
                self.add(library)
        else:
            raise LabError(f"{here} is not in the Debian tree: add its package to the list.")
