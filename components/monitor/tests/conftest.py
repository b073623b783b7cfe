"""A node's containers folder and its pods, made for one test."""

import ctypes
import fcntl
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from hamikit.hami_region import MAGIC, V0, V1
from hamikit.objects import (
    Container,
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    Metadata,
    Pod,
    PodSpec,
    PodStatus,
)
from hamikit.region import Control, ControlDevice, Kind, create_usage, write_control

MIB = 1024 * 1024

# Offsets as components/hami-core/include/hami_region.h pins them.
UNLIMITED_STARTS_AT = 56
DEVICES_AT, DEVICE_SIZE = 4096, 256
SLOTS_AT, SLOT_SIZE, SHARES_AT = 8192, 1152, 128
UNIT = 512
LOCK_BASE = 0x40000000
FLOCK = struct.Struct("hhqqi0q")  # struct flock of a 64-bit Linux


PROCESS, SAMPLE = struct.Struct("=I4xQII"), struct.Struct("=I4xQIIII")  # as nvml.h has them


def fill(array: Any, count: Any, rows: list[bytes]) -> int:
    """Answer a question for rows as NVML does: how many there are, and them if there is room."""
    room, count._obj.value = count._obj.value, len(rows)
    if room < len(rows):
        return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
    ctypes.memmove(array, b"".join(rows), sum(map(len, rows)))
    return 0


class Usage:
    """Writes into a usage file as the limiter in the container does.

    Its processes are alive, that is, hold their slots' locks, until `close`.
    """

    def __init__(self, path: Path) -> None:
        create_usage(path)
        self.path = path
        self.alive = path.open("r+b")

    def close(self) -> None:
        self.alive.close()

    def put(self, at: int, layout: str, *values: Any) -> None:
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(struct.pack(layout, *values))

    def used(self, device: int, used: int) -> None:
        self.put(DEVICES_AT + device * DEVICE_SIZE, "<Q", (used // UNIT) << 24)

    def process(self, slot: int, *, last_s: float = 0, **shares: int) -> None:
        """A live process; shares are of device 0, in bytes, named like the kinds."""
        lock = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, LOCK_BASE + slot, 1, 0)
        fcntl.fcntl(self.alive, fcntl.F_OFD_SETLK, lock)
        at = SLOTS_AT + slot * SLOT_SIZE
        self.put(at, "<IiQQ", 1, 40 + slot, 1, int(last_s * 1e9))
        for name, size in shares.items():
            self.put(at + SHARES_AT + 8 * Kind[name.upper()], "<Q", size // UNIT)

    def unlimited(self, starts: int) -> None:
        self.put(UNLIMITED_STARTS_AT, "<Q", starts)


def container_id(uid: str, name: str) -> str:
    """The id that the runtime gives to a container, the same each time."""
    return hashlib.sha256(f"{uid}/{name}".encode()).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty containers folder."""
    folder = tmp_path / "containers"
    folder.mkdir()
    return folder


@pytest.fixture
def granted(root: Path) -> Iterator[Callable[..., Usage]]:
    """Makes a container's folder with both files: `granted("uid-a_main", ("GPU-a", 3000, 30))`."""
    made: list[Usage] = []

    def make(name: str, *devices: tuple[str, int, int]) -> Usage:
        (root / name).mkdir()
        slices = tuple(ControlDevice(uuid, mib * MIB, cores) for uuid, mib, cores in devices)
        write_control(root / name / "control", Control(slices))
        made.append(Usage(root / name / "usage"))
        return made[-1]

    yield make
    for usage in made:
        usage.close()


@pytest.fixture
def hami_region(root: Path) -> Callable[..., Path]:
    """Writes a region as HAMi's limiter does, into a folder that is open as HAMi makes it."""

    def write(
        folder: str,
        *,
        name: str = "4f.cache",
        version: int = 1,
        uuid: str = "GPU-a",
        limit_mib: int = 0,
        pid: int = 7,
        total_mib: int = 0,
        context_mib: int = 0,
        mtime: float | None = None,
    ) -> Path:
        layout = (V0, V1)[version]
        image = bytearray(layout.size + 1)
        slot = layout.slots_at
        sizes = (context_mib, 0, total_mib - context_mib, 0, total_mib)
        for at, form, values in (
            (0, "<ii", (MAGIC, 1)),
            (layout.device_count_at, "<Q", (1,)),
            (layout.uuids_at, "96s", (uuid.encode(),)),
            (layout.memory_limits_at, "<Q", (limit_mib * MIB,)),
            (slot, "<ii", (pid, 0)),
            (slot + 8, "<5Q", [size * MIB for size in sizes]),
            (slot + layout.status_at, "<i", (1,)),
            (layout.slot_count_at, "<i", (1,)),
            *(((layout.last_kernel_at, "<q", (1_700_000_000,)),) if layout.last_kernel_at else ()),
        ):
            struct.pack_into(form, image, at, *values)
        (root / folder).mkdir(exist_ok=True)
        (root / folder).chmod(0o777)
        path = root / folder / name
        path.write_bytes(image)
        if mtime is not None:
            os.utime(path, (mtime, mtime))
        return path

    return write


@pytest.fixture
def make_pod() -> Callable[..., Pod]:
    """Makes a pod `ns/pod-<uid>`; `ended` and `waiting` name containers in that state."""

    def make(
        uid: str,
        *containers: str,
        init: tuple[str, ...] = (),
        ended: tuple[str, ...] = (),
        waiting: tuple[str, ...] = (),
        phase: str = "Running",
        annotations: dict[str, str] | None = None,
    ) -> Pod:
        gone = ContainerState(terminated=ContainerStateTerminated())
        again = ContainerState(waiting={"reason": "CrashLoopBackOff"})
        here = ContainerState(running={"startedAt": "2026-01-01T00:00:00Z"})

        def statuses(names: tuple[str, ...]) -> list[ContainerStatus]:
            return [
                ContainerStatus(
                    name,
                    container_id=f"containerd://{container_id(uid, name)}",
                    state=gone if name in ended else again if name in waiting else here,
                )
                for name in names
            ]

        return Pod(
            Metadata(f"pod-{uid}", "ns", uid, annotations=annotations or {}),
            PodSpec([Container(c) for c in containers], [Container(c) for c in init], "node-1"),
            PodStatus(
                phase,
                init_container_statuses=statuses(init),
                container_statuses=statuses(containers),
            ),
        )

    return make
