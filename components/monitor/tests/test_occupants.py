"""NVML's process lists, in every form that drivers have them."""

# ruff: noqa: N802 - pynvml's names

from types import SimpleNamespace

import pynvml
import pytest

from hami_monitor.occupants import Occupant, occupants


class FakeError(Exception):
    def __init__(self, value):
        self.value = value
        super().__init__(str(value))


NOT_SUPPORTED, NOT_FOUND, NO_FUNCTION, UNKNOWN = 3, 6, 13, 999


class Card:
    """NVML with one card; a list or a code to fail with, by kind of process."""

    NVMLError = FakeError
    NVML_ERROR_NOT_SUPPORTED = NOT_SUPPORTED
    NVML_ERROR_NOT_FOUND = NOT_FOUND
    NVML_ERROR_FUNCTION_NOT_FOUND = NO_FUNCTION

    def __init__(self, compute=(), graphics=(), mps=(), busy=()):
        self.answers = {"compute": compute, "graphics": graphics, "mps": mps, "busy": busy}
        self.since = None

    def answer(self, kind):
        found = self.answers[kind]
        if isinstance(found, int):
            raise FakeError(found)
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in found]

    def nvmlDeviceGetComputeRunningProcesses(self, _handle):
        return self.answer("compute")

    def nvmlDeviceGetGraphicsRunningProcesses(self, _handle):
        return self.answer("graphics")

    def nvmlDeviceGetMPSComputeRunningProcesses(self, _handle):
        return self.answer("mps")

    def nvmlDeviceGetProcessUtilization(self, _handle, since):
        self.since = since
        found = self.answers["busy"]
        if isinstance(found, int):
            raise FakeError(found)
        return [pynvml.c_nvmlProcessUtilizationSample_t(p, t, u) for p, u, t in found]


class OldCard(Card):
    """A driver that has the lists in their second form only."""

    def nvmlDeviceGetComputeRunningProcesses(self, _handle):
        raise FakeError(NO_FUNCTION)

    def nvmlDeviceGetComputeRunningProcesses_v2(self, _handle):
        return self.answer("compute")


def seen(card):
    """What is on the card at 10 s."""
    return occupants(card, None, now_us=10_000_000)


def test_all_lists_count_and_a_process_counts_once():
    """One that computes and draws stands in two lists with one figure."""
    card = Card([(1, 10), (2, 20)], [(2, 20), (3, 5)], [(4, 7)], [(2, 30, 1)])
    expected = (Occupant(1, 10, 0), Occupant(2, 20, 30), Occupant(3, 5, 0), Occupant(4, 7, 0))
    assert seen(card) == expected
    assert card.since == 8_000_000


def test_the_newest_sample_of_a_process_counts():
    """Whatever order they come in."""
    assert seen(Card([(1, 10)], busy=[(1, 30, 1), (1, 50, 9), (1, 40, 5)]))[0].utilization == 50


@pytest.mark.parametrize(
    ("busy", "shown"), [(NOT_FOUND, 0), (NOT_SUPPORTED, None), (NO_FUNCTION, None)]
)
def test_no_samples_are_idle_and_no_function_is_unknown(busy, shown):
    """A MIG card does not tell; that is not idleness."""
    assert seen(Card([(1, 10)], busy=busy)) == (Occupant(1, 10, shown),)


def test_an_older_driver_is_asked_in_its_form():
    """Before 510."""
    assert seen(OldCard([(1, 10)])) == (Occupant(1, 10, 0),)


def test_memory_that_the_driver_does_not_tell_is_unknown():
    """As under WSL."""
    assert seen(Card([(1, None)])) == (Occupant(1, None, 0),)


def test_lists_that_are_not_supported_are_empty():
    """No MPS, no graphics: nobody there."""
    assert seen(Card(NOT_SUPPORTED, NO_FUNCTION, NOT_SUPPORTED)) == ()


@pytest.mark.parametrize("kind", ["compute", "busy"])
def test_a_failing_card_says_so(kind):
    """What is unknown must not look like an empty card."""
    card = Card([(1, 10)])
    card.answers[kind] = UNKNOWN
    with pytest.raises(FakeError):
        seen(card)
