"""NVML's process lists, in every form that drivers have them."""

import ctypes

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami_monitor.occupants import Lists, Occupant

from .conftest import PROCESS, SAMPLE, fill

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
NOT_FOUND = pynvml.NVML_ERROR_NOT_FOUND
NO_FUNCTION = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
UNKNOWN = pynvml.NVML_ERROR_UNKNOWN
NOT_TOLD = 2**64 - 1


class Library:
    """NVML's own functions for one card; rows or a code to fail with, by kind of process."""

    def __init__(self, compute=(), graphics=(), mps=(), busy=()):
        self.answers = {"Compute": compute, "Graphics": graphics, "MPSCompute": mps, "busy": busy}
        self.asked, self.since, self.form = 0, None, "_v3"

    def __getattr__(self, name):
        if name == "nvmlDeviceGetProcessUtilization":
            return self.busy
        kind = name.removeprefix("nvmlDeviceGet").removesuffix(f"RunningProcesses{self.form}")
        if kind not in self.answers:
            raise AttributeError(name)
        rows = self.answers[kind]
        return lambda _card, count, array: self.answer(
            rows, array, count, lambda row: PROCESS.pack(*row, 0, 0)
        )

    def answer(self, rows, array, count, pack):
        self.asked += 1
        return rows if isinstance(rows, int) else fill(array, count, [pack(row) for row in rows])

    def busy(self, _card, array, count, since):
        self.since = since.value
        pack = lambda row: SAMPLE.pack(row[0], row[2], row[1], 0, 0, 0)  # noqa: E731
        return self.answer(self.answers["busy"], array, count, pack)


class Binding:
    """pynvml over that library."""

    def __init__(self, library):
        self.nvmlLib = library

    def __getattr__(self, name):
        return getattr(pynvml, name)


def seen(library, lists=None):
    """What is on the card at 10 s."""
    return (lists or Lists()).occupants(Binding(library), None, now_us=10_000_000)


def test_the_rows_are_as_long_as_the_drivers():
    """By pynvml's declarations of NVML's structures."""
    assert PROCESS.size == ctypes.sizeof(pynvml.c_nvmlProcessInfo_v3_t)
    assert PROCESS.size == ctypes.sizeof(pynvml.c_nvmlProcessInfo_v2_t)
    assert SAMPLE.size == ctypes.sizeof(pynvml.c_nvmlProcessUtilizationSample_t)


def test_all_lists_count_and_a_process_counts_once():
    """One that computes and draws stands in two lists with one figure."""
    library = Library([(1, 10), (2, 20)], [(2, 20), (3, 5)], [(4, 7)], [(2, 30, 1)])
    expected = (Occupant(1, 10, 0), Occupant(2, 20, 30), Occupant(3, 5, 0), Occupant(4, 7, 0))
    assert seen(library) == expected
    assert library.since == 8_000_000


@given(st.lists(st.integers(0, 300), min_size=1, max_size=6))
def test_every_process_is_seen_however_many_there_are(sizes):
    """One card after the other in the same arrays: none is cut off, none is of the card before."""
    lists = Lists()
    for size in sizes:
        rows = [(pid, pid) for pid in range(1, size + 1)]
        found = seen(Library(rows, busy=[(pid, 3, 1) for pid, _ in rows]), lists)
        assert found == tuple(Occupant(pid, pid, 3) for pid, _ in rows)


def test_a_card_is_asked_once_for_each_list():
    """Each question goes to the driver, which takes its time."""
    library = Library([(1, 10)])
    seen(library)
    assert library.asked == 4


def test_a_row_that_was_counted_and_not_filled_is_nobody():
    """A process that ended while the driver counted, or a driver that counts its whole array."""
    assert seen(Library([(1, 10), (0, 0)], busy=[(0, 90, 9)])) == (Occupant(1, 10, 0),)


def test_the_newest_sample_of_a_process_counts():
    """Whatever order they come in."""
    assert seen(Library([(1, 10)], busy=[(1, 30, 1), (1, 50, 9), (1, 40, 5)]))[0].utilization == 50


@pytest.mark.parametrize(
    ("busy", "shown"), [(NOT_FOUND, 0), (NOT_SUPPORTED, None), (NO_FUNCTION, None)]
)
def test_no_samples_are_idle_and_no_function_is_unknown(busy, shown):
    """A MIG card does not tell; that is not idleness."""
    assert seen(Library([(1, 10)], busy=busy)) == (Occupant(1, 10, shown),)


def test_an_older_driver_is_asked_in_its_form():
    """Before 510 there are the second forms only."""
    library = Library([(1, 10)])
    library.form = "_v2"
    assert seen(library) == (Occupant(1, 10, 0),)


def test_memory_that_the_driver_does_not_tell_is_unknown():
    """As under WSL; what another list tells of the same process counts."""
    assert seen(Library([(1, NOT_TOLD)])) == (Occupant(1, None, 0),)
    assert seen(Library([(1, NOT_TOLD)], [(1, 5)])) == (Occupant(1, 5, 0),)


def test_lists_that_are_not_supported_are_empty():
    """No MPS, no graphics: nobody there."""
    assert seen(Library(NOT_SUPPORTED, NO_FUNCTION, NOT_SUPPORTED)) == ()


@pytest.mark.parametrize("kind", ["Compute", "busy"])
@pytest.mark.parametrize("code", [UNKNOWN, pynvml.NVML_ERROR_INSUFFICIENT_SIZE])
def test_a_failing_card_says_so(kind, code):
    """What is unknown must not look like an empty card; nor is it asked for ever."""
    library = Library([(1, 10)])
    library.answers[kind] = code
    with pytest.raises(pynvml.NVMLError) as refused:
        seen(library)
    assert refused.value.value == code
