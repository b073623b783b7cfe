"""Behaviour of hamikit.region and region_layout: the twin of hami_region.h, read warily."""

import ctypes
import fcntl
import mmap
import os
import re
import shutil
import struct
import subprocess
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamikit import region, region_layout, region_reading
from hamikit.region import (
    CONTROL_SIZE,
    USAGE_SIZE,
    Control,
    ControlDevice,
    ControlFlag,
    CorePolicy,
    Kind,
    OverheadPolicy,
    RegionError,
    create_usage,
    pack_control,
    parse_control,
    parse_usage,
    read_control,
    read_file,
    read_usage,
    update_control,
    write_control,
)

HEADER = Path(__file__).parents[3] / "components/hami-core/include"
MIB = 1024 * 1024
UUID = "GPU-11111111-2222-3333-4444-555555555555"

uuids = st.from_regex(re.compile(r"(GPU|MIG)-[0-9a-f]{8}", re.ASCII), fullmatch=True)
devices = st.builds(
    ControlDevice,
    uuid=uuids,
    memory_limit_bytes=st.integers(0, 2**63 - 1),
    core_limit_percent=st.integers(0, 100),
)
controls = st.builds(
    Control,
    devices=st.lists(devices, max_size=16, unique_by=lambda d: d.uuid).map(tuple),
    flags=st.sampled_from(ControlFlag),
    priority=st.integers(-(2**31), 2**31 - 1),
    suspended=st.booleans(),
    blocked=st.booleans(),
    contended=st.booleans(),
    core_policy=st.sampled_from(CorePolicy),
    overhead_policy=st.sampled_from(OverheadPolicy),
    log_level=st.none() | st.integers(0, 4),
    blocked_until_ns=st.integers(0, 2**64 - 1),
)


def c_offsets(tmp_path: Path, fields: dict[str, str]) -> dict[str, int]:
    """What gcc says about the header: sizes and offsets by name."""
    lines = "".join(f'printf("%zu\\n", (size_t)({expression}));' for expression in fields.values())
    source = tmp_path / "offsets.c"
    source.write_text(f'#include <stdio.h>\n#include "hami_region.h"\nint main(void){{{lines}}}')
    gcc = shutil.which("gcc")
    assert gcc is not None, "gcc is needed: apt-get install gcc"
    program = tmp_path / "offsets"
    subprocess.run([gcc, "-std=c11", f"-I{HEADER}", source, "-o", program], check=True)
    answer = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return dict(zip(fields, map(int, answer.split()), strict=True))


def test_the_twin_has_the_offsets_of_the_header(tmp_path):
    """Every offset and size used here is the one that the C compiler gives to the header."""
    body, slot = "struct hami_control_body", "struct hami_usage_slot"
    expected = {
        "sizeof(struct hami_control)": CONTROL_SIZE,
        "offsetof(struct hami_control, epoch)": region_layout.EPOCH_AT,
        "offsetof(struct hami_control, body)": region_layout.BODY_AT,
        f"sizeof({body})": region_layout.BODY_SIZE,
        f"offsetof({body}, devices)": region_layout._BODY.size,
        f"offsetof({body}, log_level)": struct.calcsize("<IIIIiIIIII"),
        f"offsetof({body}, blocked_until_ns)": struct.calcsize("<IIIIiIIIIIi4x"),
        "sizeof(struct hami_control_device)": region_layout._CONTROL_DEVICE.size,
        "offsetof(struct hami_control_device, memory_limit_bytes)": region_layout.UUID_SIZE,
        "sizeof(struct hami_usage)": USAGE_SIZE,
        "offsetof(struct hami_usage, library_version)": region_layout._USAGE_COUNTERS_AT,
        "offsetof(struct hami_usage, private_starts)": 64,
        "offsetof(struct hami_usage, devices)": region_layout._USAGE_DEVICES_AT,
        "sizeof(struct hami_usage_device)": region_layout._USAGE_DEVICE.size,
        "offsetof(struct hami_usage_device, credit_ns)": struct.calcsize("<QQQ104x"),
        "offsetof(struct hami_usage_device, launches)": struct.calcsize("<QQQ104xqQQ"),
        "offsetof(struct hami_usage_device, crowded_until_ns)": struct.calcsize("<QQQ104xqQQQ"),
        "offsetof(struct hami_usage, turns)": 1024,
        "offsetof(struct hami_usage, slots)": region_layout._SLOTS_AT,
        f"sizeof({slot})": region_layout._SLOT_SIZE,
        f"offsetof({slot}, last_activity_ns)": struct.calcsize("<IiQ"),
        f"offsetof({slot}, host)": region_layout.host_at(0) - region_layout._SLOTS_AT,
        f"offsetof({slot}, command)": struct.calcsize("<IiQQQ"),
        f"offsetof({slot}, share_units)": region_layout._SLOT.size,
        f"sizeof((({slot} *)0)->share_units[0])": region_layout._SHARES.size,
        "HAMI_UNIT": region.UNIT_BYTES,
        "HAMI_USED_UNITS_SHIFT": region_layout._UNITS_SHIFT,
        "HAMI_MAX_DEVICES": region.MAX_DEVICES,
        "HAMI_MAX_SLOTS": region.MAX_SLOTS,
        "HAMI_LOCK_BASE": region.LOCK_BASE,
        "HAMI_SLOT_LIVE": region_layout._LIVE,
        "HAMI_KINDS": len(Kind),
        "HAMI_CONTROL_ENV_MAY_LOOSEN": ControlFlag.ENV_MAY_LOOSEN,
        "HAMI_OVERHEAD_STRICT": OverheadPolicy.STRICT,
        "HAMI_CORE_FORCE": CorePolicy.FORCE,
        "HAMI_CORE_DISABLE": CorePolicy.DISABLE,
        "HAMI_CORE_SHARE": CorePolicy.SHARE,
    } | {f"HAMI_KIND_{kind.name}": kind for kind in Kind}
    assert expected == c_offsets(tmp_path, {name: name for name in expected})


@given(controls)
def test_a_control_file_reads_back_as_it_was_packed(control):
    """parse_control is the inverse of pack_control."""
    assert control == parse_control(pack_control(control))


@pytest.mark.parametrize(
    ("device", "complaint"),
    [
        (ControlDevice("", 1), "UUID"),
        (ControlDevice("x" * 64, 1), "UUID"),
        (ControlDevice("GPU-é", 1), "UUID"),
        (ControlDevice(UUID, -1), "memory limit"),
        (ControlDevice(UUID, 2**63), "memory limit"),
        (ControlDevice(UUID, 1, 101), "core limit"),
    ],
)
def test_a_grant_that_cannot_be_right_is_refused(device, complaint):
    """What would be cut or wrapped by the layout is an error that names the field."""
    with pytest.raises(RegionError, match=complaint):
        pack_control(Control((device,)))


def test_a_device_granted_twice_is_refused():
    """Two entries of one UUID would leave open which limit holds."""
    with pytest.raises(RegionError, match="twice"):
        pack_control(Control((ControlDevice(UUID, 1), ControlDevice(UUID, 2))))


def test_more_devices_than_the_layout_holds_are_refused():
    """The seventeenth device has no place."""
    with pytest.raises(RegionError, match="17 devices"):
        pack_control(Control(tuple(ControlDevice(f"GPU-{i}", 1) for i in range(17))))


def test_a_change_keeps_the_inode_and_is_seen_by_whoever_has_the_file_open(tmp_path):
    """A bind mount holds the inode, so a change of limits is written in place."""
    path = tmp_path / "control"
    write_control(path, Control((ControlDevice(UUID, MIB),)))
    with path.open("rb") as mounted:
        for limit in (2 * MIB, 3 * MIB, 4 * MIB):
            changed = Control((ControlDevice(UUID, limit, 30),), suspended=True)
            write_control(path, changed)
            assert changed == parse_control(os.pread(mounted.fileno(), CONTROL_SIZE, 0))
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_new_control_file_is_prepared_before_anybody_sees_it(tmp_path):
    """Who watches the folder opens it at once; one that is there already needs no preparation."""
    path, seen = tmp_path / "control", []

    def prepare(file):
        seen.append((read_control(file), path.exists()))
        file.chmod(0o664)

    control = Control((ControlDevice(UUID, MIB),))
    write_control(path, control, prepare=prepare)
    assert seen == [(control, False)]
    assert path.stat().st_mode & 0o777 == 0o664
    write_control(path, control, prepare=prepare)
    assert len(seen) == 1


def test_a_control_file_can_be_changed_through_a_descriptor(tmp_path):
    """The authorised path of a run-time change may hold only a descriptor, which stays open."""
    path = tmp_path / "control"
    write_control(path, Control((ControlDevice(UUID, MIB),)))
    with path.open("r+b") as file:
        write_control(file.fileno(), Control((ControlDevice(UUID, 5 * MIB),)))
        assert read_control(path).devices[0].memory_limit_bytes == 5 * MIB
        assert not file.closed


def test_a_writer_killed_half_way_leaves_the_old_grant_in_force(tmp_path):
    """The body not in force may hold anything: readers neither see it nor wait."""
    path = tmp_path / "control"
    grant = Control((ControlDevice(UUID, MIB),))
    write_control(path, grant)
    with path.open("r+b") as file:
        file.seek(region_layout.BODY_AT + region_layout.BODY_SIZE)
        file.write(b"\xff" * region_layout.BODY_SIZE)
    assert grant == read_control(path)
    write_control(path, Control((ControlDevice(UUID, 2 * MIB),)))
    assert read_control(path).devices[0].memory_limit_bytes == 2 * MIB


@given(st.data())
def test_a_torn_control_file_is_never_taken_for_a_grant(data):
    """Any mix of an old and a new body fails its checksum, unless it is one of the two."""
    old, new = (pack_control(data.draw(controls)) for _ in range(2))
    cut = data.draw(st.integers(0, CONTROL_SIZE))
    try:
        answer = parse_control(new[:cut] + old[cut:])
    except RegionError:
        return
    assert answer in {parse_control(old), parse_control(new)}


def test_a_control_file_is_not_written_through_a_link(tmp_path):
    """Whoever can place a link in the folder must not choose the file that root writes."""
    real, link = tmp_path / "real", tmp_path / "control"
    write_control(real, Control((ControlDevice(UUID, MIB),)))
    link.symlink_to(real)
    with pytest.raises(OSError, match="symbolic"):
        write_control(link, Control((ControlDevice(UUID, 2 * MIB),)))
    assert read_control(real).devices[0].memory_limit_bytes == MIB


def test_one_writer_at_a_time(tmp_path, monkeypatch):
    """Two would write into the same body; the second waits for the first one's lock."""
    path, refused = tmp_path / "control", []
    write_control(path, Control((ControlDevice(UUID, MIB),)))

    def second(_epoch):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                refused.append(path)

    monkeypatch.setattr(region, "_wake_waiters", second)
    write_control(path, Control((ControlDevice(UUID, 2 * MIB),)))
    assert refused == [path]


def test_a_change_caught_half_way_is_read_again(tmp_path, monkeypatch):
    """The next reading is whole; what stays torn is an error that names the file."""
    path, grant = tmp_path / "control", Control((ControlDevice(UUID, MIB),))
    whole, images = pack_control(grant), []
    torn = whole[:200] + b"\xff" + whole[201:]
    monkeypatch.setattr(region_reading, "read_file", lambda *_: images.pop(0))
    images += [torn, torn, whole]
    assert read_control(path) == grant
    images += [torn] * 3
    with pytest.raises(RegionError, match=r"control: .* checksum"):
        read_control(path)


def test_whoever_waits_for_a_change_is_woken(tmp_path):
    """A suspended process sleeps on the epoch in its own mapping of the file."""
    path = tmp_path / "control"
    write_control(path, Control((ControlDevice(UUID, MIB),), suspended=True))
    answers, thread_ids = [], []
    libc = ctypes.CDLL(None)

    def wait():
        with path.open("r+b") as file, mmap.mmap(file.fileno(), CONTROL_SIZE) as mapped:
            word = ctypes.c_uint32.from_buffer(mapped, region_layout.EPOCH_AT)
            thread_ids.append(threading.get_native_id())
            limit = (ctypes.c_long * 2)(20, 0)
            number = region._SYS_FUTEX[os.uname().machine]
            answers.append(libc.syscall(number, ctypes.byref(word), 0, 0, limit, None, 0))
            del word

    waiter = threading.Thread(target=wait)
    waiter.start()
    deadline = time.monotonic() + 10
    number = str(region._SYS_FUTEX[os.uname().machine])
    # The kernel says when the thread sleeps in that call: only then is a wake-up needed.
    asleep = False
    while not asleep and time.monotonic() < deadline:
        for thread in thread_ids:
            called = Path(f"/proc/self/task/{thread}/syscall").read_text().split()
            asleep = called[0] == number and called[2:4] == ["0x0", "0x0"]
    assert asleep
    write_control(path, Control((ControlDevice(UUID, MIB),)))
    waiter.join(30)
    assert answers == [0]


def test_an_unknown_layout_is_named_and_left_alone(tmp_path):
    """A file of another layout version is an error for reader and writer, not a guess."""
    path = tmp_path / "control"
    image = bytearray(pack_control(Control(())))
    struct.pack_into("<I", image, 8, 2)
    path.write_bytes(image)
    with pytest.raises(RegionError, match="layout 2"):
        read_control(path)
    with pytest.raises(RegionError, match="layout 2"):
        write_control(path, Control(()))


def test_a_new_usage_file_is_empty_and_open_to_the_tenant(tmp_path):
    """The host creates it at its full size; whatever user the container runs as may write."""
    path = tmp_path / "usage"
    create_usage(path)
    usage = read_usage(path)
    assert (len(usage.devices), usage.processes) == (16, ())
    assert all(device.used_bytes == 0 for device in usage.devices)
    assert path.stat().st_mode & 0o777 == 0o666


def test_creating_a_usage_file_again_keeps_its_charges(tmp_path):
    """A container that restarts meets its file; one that was damaged is replaced."""
    path = tmp_path / "usage"
    create_usage(path)
    with path.open("r+b") as file:
        file.seek(region_layout._USAGE_DEVICES_AT)
        file.write(struct.pack("<Q", (7 << 24) | 0x030001))
    create_usage(path)
    assert read_usage(path).devices[0].used_bytes == 7 * 512
    path.write_bytes(b"short")
    create_usage(path)
    assert read_usage(path).devices[0].used_bytes == 0


def test_a_live_slot_is_a_process_with_its_shares():
    """Shares come per device and kind in bytes; free slots are left out."""
    image = bytearray(USAGE_SIZE)
    region_layout.HEADER.pack_into(image, 0, b"HAMIUSGE", 1, USAGE_SIZE)
    image[16:21] = b"0.1.0"
    at = region_layout._SLOTS_AT + 3 * region_layout._SLOT_SIZE
    region_layout._SLOT.pack_into(image, at, 1, 42, 99, 123, 7000 << 32 | 99, b"python")
    struct.pack_into("<Q", image, at + 128 + 64 * 1 + 8 * Kind.POOL, 4096)
    usage = parse_usage(bytes(image))
    (process,) = usage.processes
    assert usage.library_version == "0.1.0"
    assert (
        process.slot, process.pid, process.start_time, process.last_activity_ns, process.command,
    ) == (3, 42, 99, 123, "python")  # fmt: skip
    assert dict(process.shares) == {(1, Kind.POOL): 4096 * 512}


@given(st.binary(max_size=400), st.integers(0, USAGE_SIZE), st.integers(0, USAGE_SIZE - 400))
def test_whatever_a_tenant_writes_is_a_usage_or_one_region_error(garbage, length, at):
    """Truncation and garbage never raise anything else."""
    image = bytearray(USAGE_SIZE)
    region_layout.HEADER.pack_into(image, 0, b"HAMIUSGE", 1, USAGE_SIZE)
    image[at : at + len(garbage)] = garbage
    for data in (bytes(image), bytes(image[:length])):
        try:
            parse_usage(data)
        except RegionError as error:
            assert str(error)  # noqa: PT017 - either outcome is right, another exception is not


def test_a_link_a_pipe_and_a_wrong_size_are_refused(tmp_path):
    """read_file opens nothing through a link, does not block on a pipe and names what is wrong."""
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    real.write_bytes(b"12345678")
    link.symlink_to(real)
    os.mkfifo(pipe)
    assert read_file(real, 8) == b"12345678"
    for path, size, complaint in (
        (link, 8, "opened"),
        (pipe, 8, "regular"),
        (real, 9, "8 bytes"),
        (real, 7, "8 bytes"),
    ):
        with pytest.raises(RegionError, match=complaint):
            read_file(path, size)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent", 8)


def test_the_checksum_covers_the_whole_body():
    """A flipped bit anywhere after the checksum is noticed."""
    image = bytearray(pack_control(Control((ControlDevice(UUID, MIB),))))
    image[region_layout.BODY_AT + region_layout.BODY_SIZE - 1] ^= 1
    with pytest.raises(RegionError, match="checksum"):
        parse_control(bytes(image))
    assert zlib.crc32(b"123456789") == 0xCBF43926  # the CRC that the C side computes


def test_an_update_keeps_what_others_changed(tmp_path):
    """Read and written under one lock: two writers of different fields lose nothing."""
    path = tmp_path / "control"
    write_control(path, Control((ControlDevice("GPU-a", 1),), priority=0))
    start = threading.Barrier(2)

    def limits():
        start.wait(30)
        for size in range(2, 202):
            update_control(
                path, lambda now, s=size: replace(now, devices=(ControlDevice("GPU-a", s),))
            )

    def blocks():
        start.wait(30)
        for turn in range(201):
            update_control(path, lambda now, t=turn: replace(now, blocked=t % 2 == 0))

    threads = [threading.Thread(target=work) for work in (limits, blocks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = read_control(path)
    assert (found.devices[0].memory_limit_bytes, found.blocked, found.priority) == (201, True, 0)


def test_an_update_without_a_change_wakes_nobody(tmp_path):
    """Else every look would make every waiting process look, too."""
    path = tmp_path / "control"
    write_control(path, Control((ControlDevice("GPU-a", 1),)))
    before = path.read_bytes()
    assert update_control(path, lambda now: replace(now, blocked=False)) is False
    assert path.read_bytes() == before
    assert update_control(path, lambda now: replace(now, blocked=True)) is True


def test_an_update_of_a_damaged_file_is_refused(tmp_path):
    """Nobody can tell what its other fields were."""
    path = tmp_path / "control"
    path.write_bytes(b"x" * CONTROL_SIZE)
    with pytest.raises(RegionError):
        update_control(path, lambda now: now)
    with pytest.raises(FileNotFoundError):
        update_control(tmp_path / "absent", lambda now: now)


@pytest.mark.parametrize(("start", "expected"), [(99, 7000), (99 + (1 << 32), 7000), (98, 0)])
def test_a_host_pid_is_of_the_process_that_started_then(tmp_path, start, expected):
    """Whoever had the slot before has left a word that does not count; other slots stay."""
    path = tmp_path / "usage"
    create_usage(path)
    with path.open("r+b") as file:
        for slot in (2, 3):
            file.seek(region_layout._SLOTS_AT + slot * region_layout._SLOT_SIZE)
            file.write(region_layout._SLOT.pack(1, 42, 99, 123, 0, b"python"))
    region.note_host_pids(path, [region.HostPid(3, 7000, start), region.HostPid(256, 1, 1)])
    second, third = region.parse_usage(path.read_bytes()).processes
    assert (second.host_pid, third.host_pid, third.command) == (0, expected, "python")
    assert path.stat().st_size == region.USAGE_SIZE
