"""Reading a node's containers, whatever their files have become."""

import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hami_monitor.containers import Unreadable, _read, read_containers, reason_of
from hamikit.objects import Container, Metadata, Pod, PodSpec
from hamikit.region import CONTROL_SIZE, USAGE_SIZE, RegionError


def read(root, *pods):
    """The readings, and the counts of what could not be read."""
    unreadable = Unreadable()
    return list(read_containers(root, pods, unreadable)), unreadable.counts()


def test_joins_folders_with_pods(root, granted, make_pod):
    """A folder is reported under the names of its pod and container, init containers too."""
    granted("uid-a_main", ("GPU-a", 3000, 30))
    granted("uid-a_prepare", ("GPU-a", 100, 0))
    readings, counts = read(root, make_pod("uid-a", "main", "other", init=("prepare",)))
    assert [(r.pod.metadata.namespace, r.pod.metadata.name, r.container) for r in readings] == [
        ("ns", "pod-uid-a", "main"),
        ("ns", "pod-uid-a", "prepare"),
    ]
    assert [r.control.devices[0].uuid for r in readings] == ["GPU-a", "GPU-a"]
    assert counts == {}


def test_leaves_out_what_is_no_running_container_of_a_known_pod(root, granted, make_pod):
    """Unknown pods and containers, what has ended or waits, and odd names are silent."""
    (root / "_").mkdir()
    for name in (
        "uid-a_waiting",
        "uid-a_ended",
        "uid-a_unknown",
        "uid-b_main",
        "uid-c_main",
        "noseparator",
    ):
        granted(name, ("GPU-a", 10, 0))
    (root / "uid-a_main").write_text("a file, not a folder")
    (root / "uid-a_link").symlink_to(root / "uid-a_ended")
    pods = (
        make_pod(
            "uid-a", "ended", "waiting", "main", "link", ended=("ended",), waiting=("waiting",)
        ),
        make_pod("uid-b", "main", phase="Succeeded"),
    )
    assert read(root, *pods) == ([], {})


def test_an_init_container_counts_while_it_runs(root, granted, make_pod):
    """Afterwards its account is stale; before its pod has a status nothing says it has ended."""
    granted("uid-a_prepare", ("GPU-a", 100, 0))
    for ended, seen in ((), ["prepare"]), (("prepare",), []):
        readings, _ = read(root, make_pod("uid-a", "main", init=("prepare",), ended=ended))
        assert [r.container for r in readings] == seen
    new = Pod(Metadata("p", "ns", "uid-a"), PodSpec([Container("prepare")]))
    assert [r.container for r in read(root, new)[0]] == ["prepare"]


def test_a_missing_root_is_an_empty_node(tmp_path, make_pod):
    """Before the first grant there is no folder at all."""
    assert read(tmp_path / "absent", make_pod("uid-a", "main")) == ([], {})


def test_a_root_that_is_no_folder_is_counted(tmp_path, make_pod):
    """What cannot be listed is no reason to fail."""
    (tmp_path / "containers").write_text("")
    assert read(tmp_path / "containers", make_pod("uid-a", "main")) == (
        [],
        {("containers", "io"): 1},
    )


def replace_by_nothing(path):
    """The file is not there."""


def replace_by_link(path):
    """A link to a well-formed file elsewhere."""
    path.symlink_to(path.parent.parent / "uid-a_good" / path.name)


def replace_by_fifo(path):
    """A pipe that nobody writes to: opening it carelessly waits for ever."""
    os.mkfifo(path)


def replace_by_folder(path):
    """A folder."""
    path.mkdir()


def replace_by_socket(path):
    """A socket; bound by a relative name, because socket names are short."""
    with socket.socket(socket.AF_UNIX) as server, tempfile.TemporaryDirectory() as short:
        server.bind(f"{short}/s")
        Path(f"{short}/s").rename(path)


def replace_by_half(path):
    """A truncated file."""
    path.write_bytes(b"HAMI" * 10)


def replace_by_sparse_giant(path):
    """A file of a terabyte that takes no space."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


def replace_by_garbage(path):
    """The right size, the wrong bytes."""
    path.write_bytes(b"\xff" * (CONTROL_SIZE if path.name == "control" else USAGE_SIZE))


ODDITIES = (
    (replace_by_nothing, "missing"),
    (replace_by_link, "link"),
    (replace_by_fifo, "not_a_file"),
    (replace_by_folder, "not_a_file"),
    (replace_by_socket, "not_a_file"),
    (replace_by_half, "size"),
    (replace_by_sparse_giant, "size"),
    (replace_by_garbage, "content"),
)


@pytest.mark.parametrize("name", ["control", "usage"])
@pytest.mark.parametrize("oddity", ODDITIES, ids=lambda oddity: oddity[0].__name__)
def test_an_odd_file_is_counted_and_the_rest_is_read(root, granted, make_pod, name, oddity):
    """The other file, and the other container, are read as if nothing had happened."""
    replace, reason = oddity
    granted("uid-a_good", ("GPU-a", 10, 0))
    granted("uid-a_odd", ("GPU-a", 20, 0))
    (root / "uid-a_odd" / name).unlink()
    replace(root / "uid-a_odd" / name)
    readings, counts = read(root, make_pod("uid-a", "good", "odd"))
    assert counts == {(name, reason): 1}
    assert [r.container for r in readings] == ["good", "odd"]
    assert getattr(readings[1], name) is None
    assert getattr(readings[1], "usage" if name == "control" else "control") is not None


def test_a_container_that_vanishes_while_being_read_is_nothing_odd(root, granted, make_pod):
    """The folder was listed, then swept: no reading, nothing counted."""
    granted("uid-a_one", ("GPU-a", 10, 0))
    granted("uid-a_two", ("GPU-a", 10, 0))
    unreadable = Unreadable()
    readings = read_containers(root, [make_pod("uid-a", "one", "two")], unreadable)
    assert next(readings).container == "one"
    for name in ("control", "usage"):
        (root / "uid-a_two" / name).unlink()
    (root / "uid-a_two").rmdir()
    assert (list(readings), unreadable.counts()) == ([], {})


def test_a_disk_that_fails_is_counted(tmp_path):
    """The error comes from the reading itself, after the file was opened."""

    def broken(_path):
        raise OSError(5, "Input/output error")

    unreadable = Unreadable()
    assert _read(tmp_path / "usage", broken, USAGE_SIZE, unreadable) is None
    assert unreadable.counts() == {("usage", "io"): 1}


def test_says_permission_when_the_file_may_not_be_opened(tmp_path):
    """The tests may run as root, who may open everything; so the error itself is given."""
    refused = RegionError("cannot be opened")
    refused.__cause__ = PermissionError(13, "Permission denied")
    assert reason_of(tmp_path / "usage", refused, USAGE_SIZE) == "permission"
    assert reason_of(tmp_path / "usage", OSError(5, "I/O error"), USAGE_SIZE) == "io"
    assert reason_of(tmp_path / "gone", RegionError("size"), USAGE_SIZE) == "missing"


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), at=st.integers(0, USAGE_SIZE - 300))
def test_no_content_fails_the_reading(data, at):
    """Whatever a tenant writes into its usage file, there is a reading or a reason."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "uid-a_main").mkdir()
        image = bytearray(b"HAMIUSGE\x01\0\0\0\0\xa0\x04\0".ljust(USAGE_SIZE, b"\0"))
        image[at : at + len(data)] = data
        (root / "uid-a_main" / "usage").write_bytes(image)
        pod = Pod(Metadata("pod", "ns", "uid-a"), PodSpec([Container("main")]))
        readings, counts = read(root, pod)
        assert bool(readings) != (("usage", "content") in counts)
