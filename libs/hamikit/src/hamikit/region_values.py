"""What the control and usage files say, as frozen values."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import Final

import msgspec


class RegionError(Exception):
    """A control or usage file cannot be used: says which file, what is wrong and why."""


class ControlFlag(IntFlag):
    """Switches of a grant."""

    NONE = 0
    ENV_MAY_LOOSEN = 1


class CorePolicy(IntEnum):
    """When the core limit holds."""

    DEFAULT = 0
    FORCE = 1
    DISABLE = 2
    SHARE = 3


class OverheadPolicy(IntEnum):
    """Whether contexts and modules count against the memory limit."""

    REPORT = 0
    STRICT = 1


class Kind(IntEnum):
    """What device memory is used for."""

    BUFFER = 0
    MANAGED = 1
    POOL = 2
    VMM = 3
    ARRAY = 4
    GRAPH = 5
    CONTEXT = 6
    MODULE = 7


OVERHEAD: Final = frozenset({Kind.CONTEXT, Kind.MODULE})  # reported, not in a device's used bytes


@dataclass(frozen=True, slots=True)
class ControlDevice:
    """One granted device; a limit of 0 means none (100 percent too).

    Of its memory `real_memory_bytes` is the share of the card's own, the rest spills to the host;
    0: all of it is the card's.
    """

    uuid: str
    memory_limit_bytes: int
    core_limit_percent: int = 0
    real_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Control:
    """What the host grants to one container; log_level None leaves it to LIBCUDA_LOG_LEVEL.

    `blocked` holds until `blocked_until_ns` of CLOCK_MONOTONIC, or where that is 0 until it is
    taken back.
    """

    devices: tuple[ControlDevice, ...]
    flags: ControlFlag = ControlFlag.NONE
    priority: int = 1
    suspended: bool = False
    blocked: bool = False
    contended: bool = False
    core_policy: CorePolicy = CorePolicy.DEFAULT
    overhead_policy: OverheadPolicy = OverheadPolicy.REPORT
    log_level: int | None = None
    blocked_until_ns: int = 0


class UsageDevice(msgspec.Struct, frozen=True):
    """What the container has charged on one device, in the order of the control file."""

    used_bytes: int
    peak_bytes: int
    refused: int
    charged_ns: int
    launches: int


class UsageProcess(msgspec.Struct, frozen=True):
    """One live process slot; shares in bytes by (device index, kind), zeros left out.

    The slot of a killed process stays live until a neighbour clears it up: whether somebody holds
    the write lock on byte LOCK_BASE + slot of the file tells. `host_pid` is 0 while no monitor has
    said it.
    """

    slot: int
    pid: int
    start_time: int
    last_activity_ns: int
    command: str
    shares: Mapping[tuple[int, Kind], int]
    host_pid: int = 0


@dataclass(frozen=True, slots=True)
class HostPid:
    """The PID on the host of the process in a slot, which started then."""

    slot: int
    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class Usage:
    """A tenant's own account: to be compared with NVML, never trusted alone."""

    library_version: str
    unknown_symbols: int
    unlimited_starts: int
    private_starts: int
    devices: tuple[UsageDevice, ...]
    processes: tuple[UsageProcess, ...]

    def without(self, slots: Iterable[int]) -> "Usage":
        """The account as it will be once these slots have been cleared."""
        gone = frozenset(slots)
        if not gone:
            return self
        freed = Counter[int]()
        for process in self.processes:
            if process.slot in gone:
                for (device, kind), amount in process.shares.items():
                    freed[device] += 0 if kind in OVERHEAD else amount
        devices = (
            msgspec.structs.replace(device, used_bytes=max(0, device.used_bytes - freed[index]))
            for index, device in enumerate(self.devices)
        )
        kept = (process for process in self.processes if process.slot not in gone)
        return replace(self, devices=tuple(devices), processes=tuple(kept))
