"""HAMi's regions, made here from the offsets that HAMi-core's own structures have."""

import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamikit.hami_region import (
    MAX_SLOTS,
    HamiDevice,
    HamiProcess,
    HamiUse,
    parse_region,
    read_region,
)
from hamikit.region import RegionError

MIB = 1024 * 1024
UUID = "GPU-03f69c50-207a-2038-9b45-23cac89cb67d"
# One byte longer than the structure: HAMi-core writes a zero just past its end.
V0_SIZE, V1_SIZE = 1197897, 2008953


class File:
    """A region of HAMi's under construction."""

    def __init__(self, size):
        self.image = bytearray(size)
        self.put(0, "<i", 19920718)

    def put(self, at, layout, *values):
        struct.pack_into(layout, self.image, at, *values)


def v1():
    """Version 1.2 with one card, two processes in use and a free slot between them."""
    file = File(V1_SIZE)
    file.put(4, "<ii", 1, 2)
    file.put(16, "<Q", 4711)
    file.put(56, "<Q", 1)
    file.put(64, "96s", UUID.encode())
    file.put(1600, "<Q", 3000 * MIB)
    file.put(1728, "<Q", 30)
    for slot, (pid, host_pid, status) in enumerate([(7, 2007, 1), (0, 0, 0), (9, 0, 2)]):
        at = 1856 + slot * 1960
        file.put(at, "<ii", pid, host_pid)
        file.put(at + 8, "<5Q", 300 * MIB, MIB, 16 * MIB, 5, 317 * MIB)
        file.put(at + 1160, "<3Q", 1, 2, 33)
        file.put(at + 1928, "<i", status)
    file.put(2008896, "<iiii", 3, 1, 2, 0)
    file.put(2008912, "<q", 1_700_000_000)
    return bytes(file.image)


def v0():
    """The older form: no version, narrower entries, no time of the last kernel."""
    file = File(V0_SIZE)
    file.put(48, "<Q", 2)
    file.put(56, "96s", UUID.encode())
    file.put(56 + 96, "96s", b"GPU-second")
    file.put(1592, "<2Q", 0, 500 * MIB)
    file.put(1720, "<2Q", 100, 50)
    file.put(1848, "<ii", 7, 2007)
    file.put(1848 + 8, "<5Q", 1, 2, 3, 4, 10)
    file.put(1848 + 8 + 40, "<5Q", 10, 20, 30, 40, 100)
    file.put(1848 + 776, "<3Q", 0, 0, 11)
    file.put(1848 + 776 + 24, "<3Q", 0, 0, 22)
    file.put(1848 + 1160, "<i", 1)
    file.put(1197880, "<iiii", 1, 0, -1, 1)
    return bytes(file.image)


def test_version_1():
    """Every field that counts, from its place."""
    region = parse_region(v1())
    use = HamiUse(300 * MIB, MIB, 16 * MIB, 317 * MIB, 33)
    assert region.version == 1
    assert region.devices == (HamiDevice(UUID, 3000 * MIB, 30),)
    assert region.processes == (HamiProcess(7, 2007, (use,)), HamiProcess(9, 0, (use,)))
    assert (region.switch, region.recent_kernel, region.priority) == (1, 2, 0)
    assert region.last_kernel_s == 1_700_000_000


def test_version_0():
    """Two cards with their own entries; what this version has not is 0."""
    region = parse_region(v0())
    assert region.version == 0
    assert region.devices == (
        HamiDevice(UUID, 0, 100),
        HamiDevice("GPU-second", 500 * MIB, 50),
    )
    uses = (HamiUse(1, 2, 3, 10, 11), HamiUse(10, 20, 30, 100, 22))
    assert region.processes == (HamiProcess(7, 2007, uses),)
    assert (region.switch, region.recent_kernel, region.priority) == (0, -1, 1)
    assert region.last_kernel_s == 0


@pytest.mark.parametrize("image", [v0(), v1(), v1() + bytes(4096)])
def test_a_file_says_what_its_bytes_say(tmp_path, image):
    """Read piece by piece or as a whole: the same; what follows the structure does not matter."""
    path = tmp_path / "x.cache"
    path.write_bytes(image)
    assert read_region(path) == parse_region(image)


@pytest.mark.parametrize(
    ("size", "patch", "says"),
    [
        (11, {}, "too few"),
        (1197895, {}, "too few"),
        (9_000_000, {}, "too many"),
        (V1_SIZE, {0: 0}, "not initialised"),
        (V1_SIZE, {4: 2}, "version 2"),
        (V0_SIZE, {0: 1}, "not initialised"),
    ],
)
def test_what_is_no_region_is_refused(tmp_path, size, patch, says):
    """As HAMi's monitor tells the versions apart: by size, first word and second word."""
    image = bytearray(v1()[:size].ljust(size, b"\0"))
    for at, value in patch.items():
        struct.pack_into("<i", image, at, value)
    path = tmp_path / "x.cache"
    path.write_bytes(image)
    with pytest.raises(RegionError, match=says):
        read_region(path)
    with pytest.raises(RegionError, match=says):
        parse_region(bytes(image))


@pytest.mark.parametrize(("count", "seen"), [(-1, 0), (2, 1), (5000, 2)])
def test_a_slot_count_out_of_range_is_clamped(count, seen):
    """A tenant's nonsense costs at most all slots."""
    image = bytearray(v1())
    struct.pack_into("<i", image, 2008896, count)
    assert len(parse_region(bytes(image)).processes) == seen


def test_a_device_count_out_of_range_is_clamped():
    """Devices without a UUID keep the others' positions."""
    image = bytearray(v1())
    struct.pack_into("<Q", image, 56, 1 << 63)
    struct.pack_into("96s", image, 64 + 3 * 96, b"\xff\xfe")
    devices = parse_region(bytes(image)).devices
    assert [d.uuid for d in devices] == [UUID, "", "", "\ufffd\ufffd", *[""] * 12]


def test_a_file_that_shrinks_meanwhile_is_refused(tmp_path, monkeypatch):
    """The size was right when it was looked at."""
    path = tmp_path / "x.cache"
    path.write_bytes(v1())
    whole = os.stat(path)
    monkeypatch.setattr(os, "fstat", lambda _fd: whole)
    os.truncate(path, 1_000_000)
    with pytest.raises(RegionError, match="truncated"):
        read_region(path)


def test_links_pipes_and_folders_are_refused(tmp_path):
    """Whatever a tenant puts into its folder, nobody waits for it or is led away."""
    (tmp_path / "real.cache").write_bytes(v1())
    (tmp_path / "link.cache").symlink_to(tmp_path / "real.cache")
    os.mkfifo(tmp_path / "pipe.cache")
    (tmp_path / "folder.cache").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(RegionError):
            read_region(tmp_path / f"{name}.cache")
    with pytest.raises(FileNotFoundError):
        read_region(tmp_path / "absent.cache")


PATCHES = st.lists(
    st.tuples(st.integers(0, V1_SIZE - 64), st.binary(min_size=1, max_size=64)), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(base=st.sampled_from([v0(), v1()]), patches=PATCHES, cut=st.integers(0, V1_SIZE))
def test_no_content_is_anything_but_a_region_or_a_refusal(base, patches, cut):
    """Garbage anywhere, and any truncation."""
    image = bytearray(base)
    for at, data in patches:
        image[at : at + len(data)] = data
    for data in (bytes(image), bytes(image[:cut])):
        try:
            region = parse_region(data)
        except RegionError:
            continue
        assert len(region.devices) <= 16
        assert len(region.processes) <= MAX_SLOTS
        assert all(len(p.uses) == len(region.devices) for p in region.processes)
        assert region.last_kernel_s >= 0
