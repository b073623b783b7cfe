"""A program is taken out of a tree with all it needs."""

import pytest

from e2e.lab.errors import LabError
from e2e.lab.tools import MERGED, Closure


@pytest.fixture
def tree(tmp_path):
    """A tree with a program, the link to it and the two libraries it needs."""
    for name, text in {
        "usr/bin/real": b"\x7fELF program",
        "usr/lib/a.so.1": b"\x7fELF a",
        "usr/lib/b.so": b"\x7fELF b",
        "usr/bin/script": b"#!/bin/sh",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text)
    (tmp_path / "usr/bin/name").symlink_to("real")
    (tmp_path / "usr/lib/a.so").symlink_to("/lib/a.so.1")
    return tmp_path


NEEDS = {"/usr/bin/real": ["/lib/a.so"], "/usr/lib/a.so.1": ["/lib/b.so"]}


def collect(tree, *paths):
    """What these paths of the tree need."""
    closure = Closure(tree, needs=lambda _tree, program: NEEDS.get(program, []))
    for path in paths:
        closure.add(path)
    return closure


def test_link_and_libraries(tree):
    """A link is kept and followed; libraries of libraries come along."""
    found = collect(tree, "/bin/name")
    assert set(found.files) == {"usr/bin/real", "usr/lib/a.so.1", "usr/lib/b.so"}
    links = {name: target for name, target in found.links.items() if name not in MERGED}
    assert links == {"usr/bin/name": "real", "usr/lib/a.so": "/lib/a.so.1"}


def test_old_names(tree):
    """A path in one of the old folders is the one under /usr, and is taken once."""
    assert set(collect(tree, "/bin/script", "/usr/bin/script").files) == {"usr/bin/script"}


def test_missing_program(tree):
    """A program that the tree lacks is named, with what to do."""
    with pytest.raises(LabError, match=r"usr/bin/absent is not in the Debian tree: add"):
        collect(tree, "/usr/bin/absent")
