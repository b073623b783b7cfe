"""The processes that NVML lists on a card."""

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

LISTS: Final = (
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
)
_OLDER: Final = "_v2"
"""Drivers before 510 have the lists in this form only."""
_WINDOW_US: Final = 2_000_000
_SAMPLE: Final = struct.Struct("@IQI")
"""How nvmlProcessUtilizationSample_t begins: PID, time in microseconds, percent of the card."""


class Occupant(NamedTuple):
    """One process on a card; None where NVML does not tell. `utilization` is percent."""

    pid: int
    memory_bytes: int | None = None
    utilization: int | None = None


def occupants(nvml: Any, handle: Any, *, now_us: int) -> tuple[Occupant, ...]:
    """Every process on a card with what it holds and how busy it keeps the card.

    Args:
        nvml: the opened binding.
        handle: the card's handle.
        now_us: Unix time in microseconds.

    Raises:
        NVMLError: the card does not answer.
    """
    memory: dict[int, int | None] = {}
    for name in LISTS:
        for process in _listed(nvml, name, handle):
            held = process.usedGpuMemory
            # A process that both computes and draws stands in two lists with the same figure.
            if held is not None:
                held = max(held, memory.get(process.pid) or 0)
            memory[process.pid] = held
    busy = _busy(nvml, handle, now_us) if memory else {}
    return tuple(
        Occupant(pid, held, None if busy is None else busy.get(pid, 0))
        for pid, held in memory.items()
    )


def _listed(nvml: Any, name: str, handle: Any) -> Iterable[Any]:
    absent = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    for function in (name, name + _OLDER):
        ask: Callable[[Any], Iterable[Any]] | None = getattr(nvml, function, None)
        if ask is None:
            continue
        try:
            return ask(handle)
        except nvml.NVMLError as error:
            if error.value not in absent:
                raise
    return ()


def _busy(nvml: Any, handle: Any, now_us: int) -> dict[int, int] | None:
    """Percent by PID of those that were busy of late; None where the card does not tell (MIG)."""
    try:
        samples = nvml.nvmlDeviceGetProcessUtilization(handle, now_us - _WINDOW_US)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_NOT_FOUND:
            return {}  # nobody was busy
        if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
            return None
        raise
    newest: dict[int, tuple[int, int]] = {}
    for sample in samples:
        # Field by field through pynvml costs more than all else here.
        pid, when, percent = _SAMPLE.unpack_from(sample)
        at = (when, percent)
        if newest.get(pid, at) <= at:
            newest[pid] = at
    return {pid: percent for pid, (_, percent) in newest.items()}
