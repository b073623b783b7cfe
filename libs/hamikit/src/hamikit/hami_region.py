"""The shared regions of HAMi-core, versions 0 and 1: what a pod from before a migration keeps."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hamikit.region import open_wary
from hamikit.region_values import RegionError

MAGIC: Final = 19920718
MAX_DEVICES: Final = 16
MAX_SLOTS: Final = 1024
LARGEST: Final = 1 << 23
"""Longer files are no regions: HAMi's readers accept what follows the structure, up to a point."""

_UUID_LABEL: Final = 40
_U64S = struct.Struct(f"<{MAX_DEVICES}Q")
_I32 = struct.Struct("<i")
_I64 = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the fields of one version lie, in bytes; `last_kernel_at` is None where there is none.

    Source: spec of HAMi-core's `shrreg` as its monitor v2.10 reads it, little endian, LP64.
    """

    version: int
    size: int
    device_count_at: int
    uuids_at: int
    memory_limits_at: int
    core_limits_at: int
    slots_at: int
    slot_size: int
    used_size: int
    utilization_at: int
    utilization_size: int
    status_at: int
    slot_count_at: int
    last_kernel_at: int | None

    @property
    def switch_at(self) -> int:
        """The utilisation switch; the recent kernel and the priority follow it."""
        return self.slot_count_at + 4


V0: Final = Layout(
    version=0,
    size=1197896,
    device_count_at=48,
    uuids_at=56,
    memory_limits_at=1592,
    core_limits_at=1720,
    slots_at=1848,
    slot_size=1168,
    used_size=40,
    utilization_at=776,
    utilization_size=24,
    status_at=1160,
    slot_count_at=1197880,
    last_kernel_at=None,
)
V1: Final = Layout(
    version=1,
    size=2008952,
    device_count_at=56,
    uuids_at=64,
    memory_limits_at=1600,
    core_limits_at=1728,
    slots_at=1856,
    slot_size=1960,
    used_size=64,
    utilization_at=1160,
    utilization_size=48,
    status_at=1928,
    slot_count_at=2008896,
    last_kernel_at=2008912,
)
_USED_AT: Final = 8
_USED = struct.Struct("<5Q")
_UTILIZATION = struct.Struct("<3Q")
_WORDS = struct.Struct("<3i")


@dataclass(frozen=True, slots=True)
class HamiUse:
    """Bytes that one process holds on one device, by purpose, and its share of the compute."""

    context_bytes: int
    module_bytes: int
    buffer_bytes: int
    total_bytes: int
    utilization: int


@dataclass(frozen=True, slots=True)
class HamiProcess:
    """One process slot; PIDs are 0 where HAMi-core did not learn them; uses by device position."""

    pid: int
    host_pid: int
    uses: tuple[HamiUse, ...]


@dataclass(frozen=True, slots=True)
class HamiDevice:
    """One device of the container as its processes found it; limits of 0 mean none.

    `uuid` is empty where the slot says nothing: positions are those of the container.
    """

    uuid: str
    memory_limit_bytes: int
    core_limit_percent: int


@dataclass(frozen=True, slots=True)
class HamiRegion:
    """A tenant's own account in HAMi's form: never trusted alone, limits least of all."""

    version: int
    devices: tuple[HamiDevice, ...]
    processes: tuple[HamiProcess, ...]
    switch: int
    recent_kernel: int
    priority: int
    last_kernel_s: int
    """Unix seconds of the last launch; 0 where none was seen or the version does not tell."""


def layout_of(head: bytes, size: int) -> Layout:
    """Which version a file is, by its first bytes and its whole size, as HAMi's monitor tells.

    Raises:
        RegionError: no region of HAMi's.
    """
    if size < V0.size or len(head) < 12:
        raise RegionError(f"{size} bytes are too few for a region of HAMi's")
    if size > LARGEST:
        raise RegionError(f"{size} bytes are too many for a region of HAMi's")
    magic, major = struct.unpack_from("<ii", head)
    if magic != MAGIC:
        raise RegionError(f"starts with {magic} instead of {MAGIC}: no region, or not initialised")
    if size < V1.size:
        return V0
    if major != 1:
        raise RegionError(f"region of version {major}, this program knows 0 and 1")
    return V1


def parse_region(data: bytes) -> HamiRegion:
    """A whole region; whatever it holds, the answer is a HamiRegion or one RegionError."""
    layout = layout_of(data[:12], len(data))
    count = _slot_count(data[layout.slot_count_at :])
    tail = data[layout.slot_count_at : layout.size]
    return _region(layout, data, count, tail)


def read_region(path: Path) -> HamiRegion:
    """The account in a region file, of which only the slots in use are read.

    Follows no link, waits for no pipe, maps nothing. FileNotFoundError when it is not there;
    RegionError names the file and what is wrong.
    """
    with open_wary(path) as fd:
        try:
            layout = layout_of(os.pread(fd, 12, 0), os.fstat(fd).st_size)
            tail = os.pread(fd, layout.size - layout.slot_count_at, layout.slot_count_at)
            count = _slot_count(tail)
            data = os.pread(fd, layout.slots_at + count * layout.slot_size, 0)
            return _region(layout, data, count, tail)
        except RegionError as error:
            raise RegionError(f"{path}: {error}") from error


def _slot_count(tail: bytes) -> int:
    if len(tail) < _I32.size:
        raise RegionError("truncated while it was read")
    (count,) = _I32.unpack_from(tail)
    return min(max(int(count), 0), MAX_SLOTS)


def _region(layout: Layout, data: bytes, count: int, tail: bytes) -> HamiRegion:
    if len(data) < layout.slots_at + count * layout.slot_size or len(tail) < (
        layout.size - layout.slot_count_at
    ):
        raise RegionError("truncated while it was read")
    devices = _devices(layout, data)
    starts = (layout.slots_at + slot * layout.slot_size for slot in range(count))
    processes = (_process(layout, data, start, len(devices)) for start in starts)
    switch, recent, priority = _WORDS.unpack_from(tail, layout.switch_at - layout.slot_count_at)
    return HamiRegion(
        version=layout.version,
        devices=devices,
        processes=tuple(process for process in processes if process is not None),
        switch=switch,
        recent_kernel=recent,
        priority=priority,
        last_kernel_s=_last_kernel(layout, tail),
    )


def _last_kernel(layout: Layout, tail: bytes) -> int:
    if layout.last_kernel_at is None:
        return 0
    (seconds,) = _I64.unpack_from(tail, layout.last_kernel_at - layout.slot_count_at)
    return max(int(seconds), 0)


def _devices(layout: Layout, data: bytes) -> tuple[HamiDevice, ...]:
    (count,) = struct.unpack_from("<Q", data, layout.device_count_at)
    memory = _U64S.unpack_from(data, layout.memory_limits_at)
    cores = _U64S.unpack_from(data, layout.core_limits_at)
    uuids = struct.iter_unpack("96s", data[layout.uuids_at : layout.memory_limits_at])
    return tuple(
        HamiDevice(_text(raw), memory[index], cores[index])
        for index, (raw,) in zip(range(min(count, MAX_DEVICES)), uuids, strict=False)
    )


def _text(raw: bytes) -> str:
    return raw[:_UUID_LABEL].split(b"\0", 1)[0].decode("utf-8", errors="replace")


def _process(layout: Layout, data: bytes, start: int, devices: int) -> HamiProcess | None:
    (status,) = _I32.unpack_from(data, start + layout.status_at)
    if status == 0:
        return None
    pid, host_pid = struct.unpack_from("<ii", data, start)
    return HamiProcess(
        pid=max(pid, 0),
        host_pid=max(host_pid, 0),
        uses=tuple(_use(layout, data, start, index) for index in range(devices)),
    )


def _use(layout: Layout, data: bytes, start: int, device: int) -> HamiUse:
    used_at = start + _USED_AT + device * layout.used_size
    context, module, buffer, _offset, total = _USED.unpack_from(data, used_at)
    at = start + layout.utilization_at + device * layout.utilization_size
    _dec, _enc, utilization = _UTILIZATION.unpack_from(data, at)
    return HamiUse(context, module, buffer, total, utilization)
