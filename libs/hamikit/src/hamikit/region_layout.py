"""The byte layout of the control and usage files, as values.

The C header components/hami-core/include/hami_region.h is the source of both layouts and explains
the fields; a test compares the offsets. The files themselves are handled in `hamikit.region`.
"""

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import compress
from types import MappingProxyType
from typing import Final

from hamikit.region_values import (
    Control,
    ControlDevice,
    ControlFlag,
    CorePolicy,
    Kind,
    OverheadPolicy,
    RegionError,
    Usage,
    UsageDevice,
    UsageProcess,
)

MAX_DEVICES: Final = 16
MAX_SLOTS: Final = 256
UNIT_BYTES: Final = 512
UUID_SIZE: Final = 64

CONTROL_MAGIC: Final = b"HAMICTRL"
CONTROL_VERSION: Final = 1
CONTROL_SIZE: Final = 4096
USAGE_MAGIC: Final = b"HAMIUSGE"
USAGE_VERSION: Final = 1
USAGE_SIZE: Final = 303104
LOCK_BASE: Final = 0x40000000

HEADER = struct.Struct("<8sII")  # magic, layout version, size: the same in both files
EPOCH_AT = 16
BODY_AT = 128
BODY_SIZE = 1920
_BODY = struct.Struct("<IIIIiIIIIIi4xQ72x")
_CONTROL_DEVICE = struct.Struct(f"<{UUID_SIZE}sQIIQ24x")
_USAGE_COUNTERS = struct.Struct("<32sQQQ")
_USAGE_COUNTERS_AT = 16
_USAGE_DEVICE = struct.Struct("<QQQ104xqQQQ96x")
_USAGE_DEVICES_AT = 4096
_SLOT = struct.Struct("<IiQQQ16s80x")
_ACTIVITY = struct.Struct("<Q")
HOST = struct.Struct("<Q")
_SHARES = struct.Struct("<8Q")
_KINDS: Final = tuple(Kind)
_STATE = struct.Struct("<I")
_SLOT_SIZE = 1152
_SLOTS_AT = 8192
_ACTIVITY_AT, _HOST_AT = 16, 24
_LIVE = 1
_UNITS_SHIFT = 24
_LOW_BITS = 0xFFFFFFFF
_NO_DEVICES: Final = bytes(MAX_DEVICES * _USAGE_DEVICE.size)
_UNUSED: Final = (UsageDevice(0, 0, 0, 0, 0),) * MAX_DEVICES
_REMEMBERED: Final = 2048
"""Parts of files, of about a KiB each, that are not parsed again when they come again."""


def _checked_device(device: ControlDevice) -> bytes:
    uuid = device.uuid.encode("ascii", errors="replace")
    if not 0 < len(uuid) < UUID_SIZE or not device.uuid.isascii() or not device.uuid.isprintable():
        raise RegionError(
            f"device UUID {device.uuid!r} must be 1 to {UUID_SIZE - 1} printable ASCII characters"
        )
    if not 0 <= device.memory_limit_bytes < 1 << 63:
        raise RegionError(
            f"memory limit {device.memory_limit_bytes} of {device.uuid} must lie in 0..2^63-1 bytes"
        )
    if not 0 <= device.core_limit_percent <= 100:
        raise RegionError(
            f"core limit {device.core_limit_percent} of {device.uuid} must lie in 0..100 percent"
        )
    if not 0 <= device.real_memory_bytes <= device.memory_limit_bytes:
        raise RegionError(
            f"real memory {device.real_memory_bytes} of {device.uuid} must lie in 0..its limit, "
            f"{device.memory_limit_bytes} bytes"
        )
    return _CONTROL_DEVICE.pack(
        uuid, device.memory_limit_bytes, device.core_limit_percent, 0, device.real_memory_bytes
    )


def pack_body(control: Control, epoch: int) -> bytes:
    """The body that `epoch` publishes, with its checksum."""
    if len(control.devices) > MAX_DEVICES:
        raise RegionError(
            f"{len(control.devices)} devices in one container, the control file holds {MAX_DEVICES}"
        )
    if len({device.uuid for device in control.devices}) != len(control.devices):
        raise RegionError(
            f"a device is granted twice: {', '.join(device.uuid for device in control.devices)}"
        )
    fields = _BODY.pack(
        0,
        epoch,
        control.flags,
        len(control.devices),
        control.priority,
        control.suspended,
        control.blocked,
        control.contended,
        control.core_policy,
        control.overhead_policy,
        -1 if control.log_level is None else control.log_level,
        control.blocked_until_ns,
    )
    body = (fields + b"".join(map(_checked_device, control.devices))).ljust(BODY_SIZE, b"\0")
    return struct.pack("<I", zlib.crc32(body[4:])) + body[4:]


def pack_control(control: Control) -> bytes:
    """The first image of a control file (epoch 0); later changes go through write_control."""
    header = HEADER.pack(CONTROL_MAGIC, CONTROL_VERSION, CONTROL_SIZE).ljust(BODY_AT, b"\0")
    return (header + pack_body(control, 0)).ljust(CONTROL_SIZE, b"\0")


def check_header(data: bytes, magic: bytes, version: int, size: int, least: int = 0) -> None:
    """RegionError unless the bytes start like a file of this kind and layout.

    They are to be the whole file, or where `least` is given that much of it.
    """
    if len(data) < (least or size):
        raise RegionError(
            f"file has {len(data)} bytes instead of {size}: truncated, or not of this kind"
        )
    found_magic, found_version, found_size = HEADER.unpack_from(data)
    if found_magic != magic:
        raise RegionError(
            f"file starts with {found_magic!r} instead of {magic!r}: not of this kind"
        )
    if (found_version, found_size) != (version, size):
        raise RegionError(
            f"layout {found_version} of {found_size} bytes, this program knows {version} of {size}"
        )


@lru_cache(_REMEMBERED)
def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", errors="replace")


def parse_control(data: bytes) -> Control:
    """The grant in force; RegionError for other bytes and for a change caught half way."""
    check_header(data, CONTROL_MAGIC, CONTROL_VERSION, CONTROL_SIZE)
    (epoch,) = struct.unpack_from("<I", data, EPOCH_AT)
    start = BODY_AT + (epoch & 1) * BODY_SIZE
    return _parse_body(data[start : start + BODY_SIZE], epoch)


@lru_cache(_REMEMBERED)
def _parse_body(body: bytes, epoch: int) -> Control:
    (
        crc,
        generation,
        flags,
        count,
        priority,
        suspended,
        blocked,
        contended,
        policy,
        overhead,
        level,
        blocked_until_ns,
    ) = _BODY.unpack_from(body)
    if generation != epoch or zlib.crc32(body[4:]) != crc:
        raise RegionError(
            f"the body of epoch {epoch} fails its checksum: read during a change, or damaged"
        )
    if count > MAX_DEVICES:
        raise RegionError(f"{count} devices, the layout holds {MAX_DEVICES}")
    devices = (
        _CONTROL_DEVICE.unpack_from(body, _BODY.size + i * _CONTROL_DEVICE.size)
        for i in range(count)
    )
    try:
        return Control(
            devices=tuple(
                ControlDevice(_text(uuid), memory, core, real)
                for uuid, memory, core, _, real in devices
            ),
            flags=ControlFlag(flags),
            priority=priority,
            suspended=bool(suspended),
            blocked=bool(blocked),
            blocked_until_ns=blocked_until_ns,
            contended=bool(contended),
            core_policy=CorePolicy(policy),
            overhead_policy=OverheadPolicy(overhead),
            log_level=None if level < 0 else level,
        )
    except ValueError as error:
        raise RegionError(
            f"a field has a value that this program does not know: {error}"
        ) from error


def live_slots(data: bytes) -> list[int]:
    """The slots in use in a usage file, or in the beginning of one."""
    last = min(len(data), USAGE_SIZE) - _SLOT_SIZE  # where the last whole slot begins
    in_question = compress(range(MAX_SLOTS), data[_SLOTS_AT : last + 1 : _SLOT_SIZE])
    return [
        slot
        for slot in in_question
        if _STATE.unpack_from(data, _SLOTS_AT + slot * _SLOT_SIZE)[0] == _LIVE
    ]


def size_of(slots: int) -> int:
    """How long the beginning of a usage file is that holds this many slots."""
    return _SLOTS_AT + slots * _SLOT_SIZE


def newest_activity(data: bytes) -> int:
    """When a process of a usage file, or of the beginning of one, was last active."""
    at = _SLOTS_AT + _ACTIVITY_AT
    found = (_ACTIVITY.unpack_from(data, at + slot * _SLOT_SIZE)[0] for slot in live_slots(data))
    return max(found, default=0)


@lru_cache(_REMEMBERED)
def _parse_shares(area: bytes) -> Mapping[tuple[int, Kind], int]:
    # Most devices of most processes hold nothing: what follows the last byte that is set is left.
    devices = -(-len(area.rstrip(b"\0")) // _SHARES.size)
    return MappingProxyType(
        {
            (device, kind): units * UNIT_BYTES
            for device in range(devices)
            for kind, units in zip(
                _KINDS, _SHARES.unpack_from(area, device * _SHARES.size), strict=True
            )
            if units
        }
    )


def host_at(slot: int) -> int:
    """Where a slot says which PID its process has on the host."""
    return _SLOTS_AT + slot * _SLOT_SIZE + _HOST_AT


def pack_host(pid: int, start_time: int) -> bytes:
    """A process's PID on the host, with what of its start time tells it from a later one."""
    return HOST.pack(pid << 32 | start_time & _LOW_BITS)


def _parse_process(data: bytes, slot: int) -> UsageProcess:
    at = _SLOTS_AT + slot * _SLOT_SIZE
    _state, pid, start_time, activity, host, command = _SLOT.unpack_from(data, at)
    host_pid = host >> 32 if host & _LOW_BITS == start_time & _LOW_BITS else 0
    shares = _parse_shares(data[at + _SLOT.size : at + _SLOT_SIZE])
    return UsageProcess(slot, pid, start_time, activity, _text(command), shares, host_pid)


def _parse_device(data: bytes, index: int) -> UsageDevice:
    at = _USAGE_DEVICES_AT + index * _USAGE_DEVICE.size
    used, peak, refused, _credit, _refill, charged_ns, launches = _USAGE_DEVICE.unpack_from(
        data, at
    )
    held = (used >> _UNITS_SHIFT) * UNIT_BYTES
    return UsageDevice(held, peak * UNIT_BYTES, refused, charged_ns, launches)


def _parse_devices(data: bytes) -> tuple[UsageDevice, ...]:
    # Most containers have one or two: the others' place is not looked at one by one.
    size = _USAGE_DEVICE.size
    used = next(
        count
        for count in (1, 2, 8, MAX_DEVICES)
        if data[_USAGE_DEVICES_AT + count * size : _SLOTS_AT] == _NO_DEVICES[count * size :]
    )
    return (*(_parse_device(data, index) for index in range(used)), *_UNUSED[used:])


def parse_usage(data: bytes) -> Usage:
    """A tenant's usage file; whatever it holds, the answer is a Usage or one RegionError."""
    usage = parse_living(data, live_slots(data), MAX_SLOTS)
    return replace(usage, devices=_parse_devices(data))


def parse_living(data: bytes, living: Iterable[int], slots: int) -> Usage:
    """Without devices, and of the processes those in the slots `living`.

    Only the beginning of the file that holds `slots` is needed.
    """
    check_header(data, USAGE_MAGIC, USAGE_VERSION, USAGE_SIZE, size_of(slots))
    version, unknown, unlimited, private = _USAGE_COUNTERS.unpack_from(data, _USAGE_COUNTERS_AT)
    return Usage(
        library_version=_text(version),
        unknown_symbols=unknown,
        unlimited_starts=unlimited,
        private_starts=private,
        devices=(),
        processes=tuple(_parse_process(data, slot) for slot in living),
    )


def said_of(data: bytes, living: Iterable[int]) -> tuple[bytes, ...]:
    """All bytes that `parse_living` looks at, but for when processes were active."""
    said = [data[: _USAGE_COUNTERS_AT + _USAGE_COUNTERS.size]]
    for slot in living:
        at = _SLOTS_AT + slot * _SLOT_SIZE
        said += data[at : at + _ACTIVITY_AT], data[at + _HOST_AT : at + _SLOT_SIZE]
    return tuple(said)
