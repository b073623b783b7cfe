"""The processes that NVML lists on a card."""

import ctypes
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

LISTS: Final = (
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
)
_FORMS: Final = ("_v3", "_v2")
"""Drivers before 510 have the lists in their second form only; both fill the same structure."""
_BUSY: Final = "nvmlDeviceGetProcessUtilization"
_WINDOW_US: Final = 2_000_000
_PROCESS: Final = struct.Struct("@IQII")
"""nvmlProcessInfo_v2_t: PID, bytes, GPU instance, compute instance."""
_SAMPLE: Final = struct.Struct("@IQIIII")
"""nvmlProcessUtilizationSample_t: PID, time in microseconds, percent of the card, and of others."""
_UNKNOWN: Final = (1 << 64) - 1
"""What stands for memory that the driver does not tell."""
_ROOM, _TRIES = 128, 4


class Occupant(NamedTuple):
    """One process on a card; None where NVML does not tell. `utilization` is percent."""

    pid: int
    memory_bytes: int | None = None
    utilization: int | None = None


class _Rows:
    """An array for the driver to fill, as long as any driver has wanted it so far.

    pynvml asks for the length first, and then makes an object of each row, one field at a time:
    with a thousand processes that was a quarter of all that the monitor did.
    """

    def __init__(self, layout: struct.Struct) -> None:
        self._layout = layout
        self._array = ctypes.create_string_buffer(layout.size * _ROOM)

    def ask(self, nvml: Any, call: Callable[[Any, Any], int]) -> Iterator[tuple[int, ...]]:
        """The rows of one answer, to be used before the next question; NVMLError is the code's."""
        size, code = self._layout.size, nvml.NVML_ERROR_INSUFFICIENT_SIZE
        for _ in range(_TRIES):
            room = len(self._array) // size
            count = ctypes.c_uint(room)
            # Rows of the last answer must not be taken for this one's.
            ctypes.memset(self._array, 0, len(self._array))
            code = call(self._array, ctypes.byref(count))
            if code != nvml.NVML_ERROR_INSUFFICIENT_SIZE:
                break
            self._array = ctypes.create_string_buffer(size * 2 * max(room, count.value))
        if code != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(code)
        whole = memoryview(self._array)[: size * min(count.value, room)]
        return self._layout.iter_unpack(whole)


def _list(function: Callable[..., int], card: Any, rows: Any, count: Any) -> int:
    return function(card, count, rows)


class Lists:
    """Asks for the processes on cards, one card at a time; keeps its arrays."""

    def __init__(self) -> None:
        self._processes, self._samples = _Rows(_PROCESS), _Rows(_SAMPLE)

    def occupants(self, nvml: Any, handle: Any, *, now_us: int) -> tuple[Occupant, ...]:
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
            for pid, told, _, _ in self._listed(nvml, name, handle):
                held = None if told == _UNKNOWN else told
                # A process that both computes and draws stands in two lists with the same figure.
                if held is not None and pid in memory:
                    held = max(held, memory[pid] or 0)
                memory[pid] = held
        memory.pop(0, None)  # a row that the driver has counted and not filled
        busy = self._busy(nvml, handle, now_us) if memory else {}
        if busy is None:
            return tuple(Occupant(pid, held) for pid, held in memory.items())
        percent = busy.get
        return tuple(Occupant(pid, held, percent(pid, 0)) for pid, held in memory.items())

    def _listed(self, nvml: Any, name: str, handle: Any) -> Iterable[tuple[int, ...]]:
        absent = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        for form in _FORMS:
            function = getattr(nvml.nvmlLib, name + form, None)
            if function is None:
                continue
            try:
                return self._processes.ask(nvml, partial(_list, function, handle))
            except nvml.NVMLError as error:
                if error.value not in absent:
                    raise
        return ()

    def _busy(self, nvml: Any, handle: Any, now_us: int) -> dict[int, int] | None:
        """Percent by PID of those busy of late; None where the card does not tell (MIG)."""
        function = getattr(nvml.nvmlLib, _BUSY, None)
        if function is None:
            return None
        since = ctypes.c_ulonglong(now_us - _WINDOW_US)
        try:
            rows = self._samples.ask(nvml, lambda rows, n: int(function(handle, rows, n, since)))
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_NOT_FOUND:
                return {}  # nobody was busy
            if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                return None
            raise
        newest: dict[int, tuple[int, int]] = {}
        for pid, when, percent, *_ in rows:
            at = (when, percent)
            if newest.get(pid, at) <= at:
                newest[pid] = at
        return {pid: percent for pid, (_, percent) in newest.items()}
