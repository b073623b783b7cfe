"""A full node: files, a /proc, pods, and NVML's functions stood in for below pynvml."""

import ctypes
import fcntl
import os
import struct
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pynvml

from hamikit.region import LOCK_BASE, Control, ControlDevice, create_usage, write_control

CARDS, CONTAINERS, A_CONTAINER = 8, 100, 10
MIB = 1 << 20
NODE = "node-1"
_SLOT, _SLOTS_AT, _SLOT_SIZE = struct.Struct("<IiQQ8x16s"), 8192, 1152
_ACTIVITY_AT, _SHARES_AT = 16, 128
_PROCESS = struct.Struct("=IxxxxQ8x")  # nvmlProcessInfo_t
_SAMPLE = struct.Struct("=IxxxxQI12x")  # nvmlProcessUtilizationSample_t
_FLOCK = struct.Struct("hhqqi0q")


def uuid(card: int) -> str:
    """A card's name, as long as real ones."""
    return f"GPU-{card:08d}-0000-0000-0000-000000000000"


def uid(container: int) -> str:
    """The UID of the pod of a container."""
    return f"{container:08x}-0a1b-4c3d-9e8f-0123456789ab"


def pods() -> dict[str, Any]:
    """The node's pods, as the API server lists them."""
    items = [
        {
            "metadata": {
                "name": f"training-{i}",
                "namespace": "team",
                "uid": uid(i),
                "resourceVersion": "1",
                "annotations": {
                    "hami.io/vgpu-devices-allocated": f"{uuid(i % CARDS)},NVIDIA,3000,8:;"
                },
            },
            "spec": {"nodeName": NODE, "containers": [{"name": "main"}]},
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {
                        "name": "main",
                        "containerID": f"containerd://{i:064x}",
                        "state": {"running": {}},
                    }
                ],
            },
        }
        for i in range(CONTAINERS)
    ]
    return {"metadata": {"resourceVersion": "1"}, "items": items}


def lay_out(root: Path, pids: list[int]) -> list[Any]:
    """Files of the containers and a /proc; returns what has to stay open: the processes' locks."""
    held = []
    for i in range(CONTAINERS):
        folder = root / "vgpu/containers" / f"{uid(i)}_main"
        folder.mkdir(parents=True)
        device = ControlDevice(uuid(i % CARDS), 3000 * MIB, 8)
        write_control(folder / "control", Control((device,)))
        create_usage(folder / "usage")
        with (folder / "usage").open("r+b") as file:
            for slot in range(A_CONTAINER):
                file.seek(_SLOTS_AT + slot * _SLOT_SIZE)
                file.write(_SLOT.pack(1, slot + 1, 7, time.time_ns(), b"python"))
                file.seek(_SLOTS_AT + slot * _SLOT_SIZE + _SHARES_AT)
                file.write(struct.pack("<8Q", 100 * MIB // 512, 0, 0, 0, 0, 0, 300 * MIB // 512, 0))
            file.seek(4096)
            file.write(struct.pack("<Q", (A_CONTAINER * 100 * MIB // 512) << 24))
        lock = (folder / "usage").open("r+b")
        for slot in range(A_CONTAINER):
            request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, LOCK_BASE + slot, 1, 0)
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, request)
            write_process(root, pids[i * A_CONTAINER + slot], slot + 1, i)
        held.append(lock)
    return held


def work(root: Path, turn: int) -> None:
    """All processes launch something, and one container in ten begins to hold more."""
    for i in range(CONTAINERS):
        with (root / "vgpu/containers" / f"{uid(i)}_main" / "usage").open("r+b", 0) as file:
            for slot in range(A_CONTAINER):
                at = _SLOTS_AT + slot * _SLOT_SIZE
                os.pwrite(file.fileno(), struct.pack("<Q", time.time_ns()), at + _ACTIVITY_AT)
            if i % 10 == turn % 10:
                held = struct.pack("<Q", (100 + turn % 50) * MIB // 512)
                os.pwrite(file.fileno(), held, _SLOTS_AT + _SHARES_AT)


def write_process(root: Path, pid: int, ns_pid: int, container: int) -> None:
    """What /proc says about a process of a container."""
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} (python) S 1 " + "0 " * 17 + "7 0 0\n")
    (folder / "status").write_text(f"Name:\tpython\nNSpid:\t{pid}\t{ns_pid}\n")
    path = f"/kubepods/burstable/pod{uid(container)}/{container:064x}"
    (folder / "cgroup").write_text(f"0::{path}\n")


def _of(reference: Any) -> Any:
    """What a ctypes reference refers to."""
    return reference._obj  # noqa: SLF001


class StandIn:
    """NVML's functions by name, as pynvml calls them: arguments filled in place, 0 returned."""

    def __init__(self, pids: list[int]) -> None:
        self._by_card = [
            [
                p
                for i in range(card, CONTAINERS, CARDS)
                for p in pids[i * A_CONTAINER :][:A_CONTAINER]
            ]
            for card in range(CARDS)
        ]
        self._functions: dict[str, Callable[..., int]] = {
            "nvmlDeviceGetCount_v2": lambda count: self._fill(count, CARDS),
            "nvmlDeviceGetHandleByIndex_v2": self._by_index,
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetUUID": lambda h, text, _n: self._fill(text, uuid(_card(h)).encode()),
            "nvmlDeviceGetName": lambda _h, text, _n: self._fill(text, b"NVIDIA H100 80GB HBM3"),
            "nvmlDeviceGetMemoryInfo": self._memory,
            "nvmlDeviceGetComputeRunningProcesses_v3": self._running,
            "nvmlDeviceGetGraphicsRunningProcesses_v3": self._nobody,
            "nvmlDeviceGetMPSComputeRunningProcesses_v3": self._nobody,
            "nvmlDeviceGetProcessUtilization": self._busy,
        }

    def __getattr__(self, name: str) -> Callable[..., int]:
        return self(name)

    def __call__(self, name: str) -> Callable[..., int]:
        """The function of that name; one that is not stood in for does nothing."""
        return self._functions.get(name, lambda *_: 0)

    def appear(self, card: int, pid: int) -> None:
        """A process begins to use a card."""
        self._by_card[card].append(pid)

    def vanish(self, card: int, pid: int) -> None:
        """It is gone from the card."""
        self._by_card[card].remove(pid)

    @staticmethod
    def _fill(target: Any, value: Any) -> int:
        getattr(target, "_obj", target).value = value
        return 0

    def _by_index(self, index: Any, handle: Any) -> int:
        return self._fill(handle, int(getattr(index, "value", index)) + 1)

    def _by_uuid(self, name: Any, handle: Any) -> int:
        return self._fill(handle, int(getattr(name, "value", name)[4:12]) + 1)

    @staticmethod
    def _memory(_handle: Any, answer: Any) -> int:
        _of(answer).total, _of(answer).used = 81559 * MIB, 40000 * MIB
        return 0

    @staticmethod
    def _nobody(_handle: Any, count: Any, _array: Any) -> int:
        _of(count).value = 0
        return 0

    def _listed(self, handle: Any, count: Any, array: Any) -> list[int] | None:
        """The PIDs on a card; None where the array is too small, as NVML has it."""
        here = self._by_card[_card(handle)]
        room, _of(count).value = _of(count).value, len(here)
        return None if array is None or room < len(here) else here

    def _running(self, handle: Any, count: Any, array: Any) -> int:
        here = self._listed(handle, count, array)
        if here is None:
            return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        _put(array, _PROCESS, here, 400 * MIB)
        return 0

    def _busy(self, handle: Any, array: Any, count: Any, _since: Any) -> int:
        here = self._listed(handle, count, array)
        if here is None:
            return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        _put(array, _SAMPLE, here, 1, 1)
        return 0


def _put(array: Any, layout: struct.Struct, pids: list[int], *values: int) -> None:
    """Fill an array of ctypes; in one piece, because a driver would not take Python's time."""
    image = _image(layout.format, tuple(pids), values)
    ctypes.memmove(array, image, len(image))


@cache
def _image(layout: str, pids: tuple[int, ...], values: tuple[int, ...]) -> bytes:
    return b"".join(struct.pack(layout, pid, *values) for pid in pids)


def _card(handle: Any) -> int:
    return int(handle.value) - 1
