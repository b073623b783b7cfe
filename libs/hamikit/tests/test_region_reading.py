"""Control and usage files read warily, and no more of them than is needed."""

import fcntl
import os
import struct
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hamikit import region_layout
from hamikit.region import (
    LOCK_BASE,
    MAX_SLOTS,
    USAGE_SIZE,
    Activity,
    HostPid,
    Kind,
    Living,
    RegionError,
    create_usage,
    note_host_pids,
    read_usage,
)

SLOTS = st.sets(st.integers(0, MAX_SLOTS - 1), max_size=6)


@pytest.fixture
def path(tmp_path):
    """An empty account."""
    path = tmp_path / "usage"
    create_usage(path)
    return path


def put(path, slot, *, state=1, last_ns=0, units=0):
    """A slot whose process launched something at that time and holds that much."""
    with path.open("r+b") as file:
        file.seek(region_layout._SLOTS_AT + slot * region_layout._SLOT_SIZE)
        file.write(region_layout._SLOT.pack(state, 42, 99, last_ns, 0, b"python"))
        file.write(struct.pack("<8Q", 0, 0, units, 0, 0, 0, 5, 0))


@contextmanager
def alive(path, *slots):
    """These slots' locks are held, as by their processes."""
    with path.open("r+b") as file:
        for slot in slots:
            lock = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, LOCK_BASE + slot, 1, 0)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        yield


def test_a_process_that_ended_does_not_count(path):
    """Its slot stays charged until a neighbour clears it; the kernel has dropped its lock."""
    put(path, 0, units=10)
    put(path, 1, units=32)
    with path.open("r+b") as file:
        file.seek(region_layout._USAGE_DEVICES_AT)
        file.write(struct.pack("<Q", 42 << 24))
    with alive(path, 1):
        usage = read_usage(path)
        assert [process.slot for process in usage.processes] == [1]
        assert usage.devices[0].used_bytes == 32 * 512
    assert read_usage(path).devices[0].used_bytes == 0


@given(held=SLOTS, left=SLOTS)
@example(held={7}, left=set())
@example(held={8}, left={7, 9})
@example(held={127, 128}, left={255})
@example(held={0, 255}, left={128})
def test_the_living_are_found_wherever_they_are(tmp_path_factory, held, left):
    """As in the whole file, whatever slots the living hold and the dead have left."""
    path = tmp_path_factory.mktemp("living") / "usage"
    create_usage(path)
    for slot in held | left:
        put(path, slot, units=slot + 1)
    with alive(path, *held):
        living = Living().read(path)
        assert living.processes == read_usage(path).processes
    assert {process.slot for process in living.processes} == held
    third = list(Kind)[2]
    assert all(p.shares[0, third] == (p.slot + 1) * 512 for p in living.processes)


def test_the_living_are_found_without_reading_it_all(path, monkeypatch):
    """A file has place for 256 processes; most containers have a few."""
    asked = []
    pread = os.pread

    def counting(fd, size, at):
        asked.append(size)
        return pread(fd, size, at)

    monkeypatch.setattr(os, "pread", counting)
    put(path, 3)
    with alive(path, 3):
        Living().read(path)
    assert sum(asked) < USAGE_SIZE // 8


def test_the_same_account_is_the_same_object_until_it_says_something_else(path):
    """Launches alone change nothing of it; who ends, begins, or holds more does, and each file."""
    living = Living()
    put(path, 3, units=1)
    with alive(path, 3, 4):
        first = living.read(path)
        put(path, 3, units=1, last_ns=500)
        assert living.read(path) is first
        put(path, 3, units=2)
        more = living.read(path)
        assert [sum(p.shares.values()) for p in more.processes] == [7 * 512]
        put(path, 4, units=9)
        assert [p.slot for p in living.read(path).processes] == [3, 4]
        note_host_pids(path, [HostPid(4, 70, 99)])
        assert [p.host_pid for p in living.read(path).processes] == [0, 70]
    assert living.read(path).processes == ()
    with path.open("r+b") as file:
        file.seek(region_layout._USAGE_COUNTERS_AT + 40)
        file.write(struct.pack("<Q", 5))
    assert living.read(path).unlimited_starts == 5


@pytest.mark.parametrize(
    "read", [read_usage, Living().read, lambda p: Activity(p).newest_ns(scan=True)]
)
def test_what_is_no_account_is_refused(tmp_path, read):
    """A link, a folder, a pipe, a file of another size: RegionError; nothing at all: not found."""
    path, true = tmp_path / "usage", tmp_path / "true"
    with pytest.raises(FileNotFoundError):
        read(path)
    create_usage(true)
    path.symlink_to(true)
    with pytest.raises(RegionError, match="cannot be opened"):
        read(path)
    path.unlink()
    for make in (path.mkdir, lambda: os.mkfifo(path), lambda: path.write_bytes(b"short")):
        make()
        with pytest.raises(RegionError):
            read(path)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_file_that_is_cut_off_while_it_is_read(path, monkeypatch):
    """Is an account that cannot be read, and one of whom nothing is seen."""
    monkeypatch.setattr(os, "pread", lambda _fd, size, _at: b"HAMIUSGE"[:size])
    for read in (read_usage, Living().read):
        with pytest.raises(RegionError, match="truncated"):
            read(path)
    assert Activity(path).newest_ns(scan=True) == 0


def test_the_newest_activity_of_a_container(path):
    """Of slots in use; who came far behind the others is seen at the next scan."""
    activity = Activity(path)
    assert activity.newest_ns(scan=True) == 0
    put(path, 3, last_ns=500)
    put(path, 255, last_ns=900)
    put(path, 4, last_ns=9999, state=0)
    with alive(path, 255):
        assert activity.newest_ns(scan=False) == 500
        assert activity.newest_ns(scan=True) == 900
    put(path, 3, last_ns=1000)
    assert activity.newest_ns(scan=False) == 1000
    put(path, 3, last_ns=400)
    assert activity.newest_ns(scan=False) == 900
    assert activity.newest_ns(scan=True) == 400


def test_a_slot_whose_state_is_no_state_is_not_in_use(path):
    """Only the word 1 is, not any that ends in it."""
    put(path, 0, state=0x101)
    put(path, 1, state=0x100)
    with alive(path, 0, 1):
        assert read_usage(path).processes == ()
