"""Parts are built once, wholly or not at all."""

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.lab.cache import KEPT, Cache, Part, digest, locked
from e2e.lab.console import Console
from e2e.lab.errors import LabError


def cache(root):
    """A cache that prints nowhere."""
    return Cache(root / "cache", root / "state", Console(out=io.StringIO()))


def part(name="thing", inputs=("1",), needs=(), built=None, text="x"):
    """A part of one file, which notes in `built` that it was made."""

    def build(work):
        if built is not None:
            built.append(name)
        (work.out / "file").write_text(text)

    return Part(name, inputs, build, needs=needs)


def test_built_once(tmp_path):
    """A second look finds the part and builds nothing."""
    built = []
    for _ in range(2):
        folder = cache(tmp_path).get(part(built=built))
    assert built == ["thing"]
    assert (folder / "file").read_text() == "x"


def test_new_inputs(tmp_path):
    """Other inputs make another part, beside the first."""
    built = []
    first = cache(tmp_path).get(part(built=built))
    second = cache(tmp_path).get(part(inputs=("2",), built=built))
    assert built == ["thing", "thing"]
    assert first != second


def test_old_parts_go(tmp_path):
    """Of one name the parts used last are kept; others' names do not count."""
    store = cache(tmp_path)
    store.get(part("thing other"))
    folders = [store.get(part(inputs=(str(n),))) for n in range(KEPT)]
    store.get(part(inputs=("0",)))
    folders.append(store.get(part(inputs=(str(KEPT),))))
    assert [folder.exists() for folder in folders] == [True, False, *[True] * (KEPT - 1)]
    assert store.has(part("thing other"))


def test_needs_first(tmp_path):
    """What a part needs is built before it and changes its key."""
    built = []
    below = part("below", built=built)
    cache(tmp_path).get(part("above", needs=(below,), built=built))
    assert built == ["below", "above"]
    assert (
        part("above", needs=(part("below", inputs=("2",)),)).key
        != part("above", needs=(below,)).key
    )


def test_key_is_a_file_name():
    """A name for people becomes a folder's name without blanks."""
    assert part("Debian tree").key.startswith("debian-tree-")


def test_failed_build(tmp_path):
    """A build that fails leaves no part behind, and the next one starts from an empty folder."""

    def fail(work):
        (work.out / "half").write_text("")
        raise LabError("no")

    broken = Part("thing", ("1",), fail)
    with pytest.raises(LabError):
        cache(tmp_path).get(broken)
    assert not cache(tmp_path).has(broken)
    folder = cache(tmp_path).get(part())
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_programs_of_a_build(tmp_path):
    """A build's programs write to the part's own log."""
    thing = Part("thing", ("1",), lambda work: work.run("echo", "hello"))
    cache(tmp_path).get(thing)
    assert "hello" in (tmp_path / "cache" / "logs" / f"{thing.key}.log").read_text()


def test_folder_inputs(tmp_path):
    """A folder counts with the names and the contents of all files in it."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    file = folder / "deep" / "a"
    file.write_text("1")
    before = digest([folder])
    file.write_text("2")
    changed = digest([folder])
    file.rename(folder / "deep" / "b")
    assert len({before, changed, digest([folder])}) == 3


@given(st.lists(st.text()), st.lists(st.text()))
def test_digests_differ(some, others):
    """Different lists of texts have different digests, however they are cut."""
    assert (digest(some) == digest(others)) == (some == others)


def test_lock_of_a_dead_process(tmp_path):
    """A lock is free again when the process that held it was killed."""
    path = tmp_path / "lock"
    hold = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(LabError, match="another run"), locked(path, wait=False):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with locked(path, wait=False):
        pass
