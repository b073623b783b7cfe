"""What NVML says of the cards, where drivers differ."""

import pynvml
import pytest

from hami_mig_manager.cards import NvmlCards
from hami_mig_manager.state import Card as Seen
from hamikit.gpu import Card

CARD = Card("GPU-a", 0, "NVIDIA A100-SXM4-40GB", 40960)


class Driver:
    """One whole card; calls in `codes` fail with them."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
    NVML_ERROR_FUNCTION_NOT_FOUND = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND

    def __init__(self, **codes):
        self.codes = codes

    def open(self):
        """Itself."""
        return self

    def handles(self):
        """The card."""
        return [(CARD, "a")]

    def _answer(self, call, found):
        if call in self.codes:
            raise pynvml.NVMLError(self.codes[call])
        return found

    def nvmlDeviceGetMigMode(self, _handle):  # noqa: N802
        """Off."""
        return self._answer("mode", [0, 0])

    def nvmlDeviceGetComputeRunningProcesses(self, _handle):  # noqa: N802
        """None."""
        return self._answer("compute", [])

    def nvmlDeviceGetGraphicsRunningProcesses(self, _handle):  # noqa: N802
        """None."""
        return self._answer("graphics", [])


@pytest.mark.parametrize(
    ("codes", "busy"),
    [
        ({}, False),
        ({"graphics": pynvml.NVML_ERROR_NOT_SUPPORTED}, False),
        ({"graphics": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}, False),
        ({"graphics": pynvml.NVML_ERROR_UNKNOWN}, True),
        ({"compute": pynvml.NVML_ERROR_NOT_SUPPORTED}, True),
        ({"compute": pynvml.NVML_ERROR_UNKNOWN}, True),
    ],
)
def test_a_card_that_does_not_draw_may_say_so(codes, busy):
    """It need not list graphics processes; one that cannot list those that compute is in use."""
    (card,) = NvmlCards(Driver(**codes)).read().values()
    assert card.busy is busy


def test_cards_that_nobody_can_divide_are_none_of_ours():
    """By their own word or the driver's; any other error is a fault of the card."""
    for code in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
        assert NvmlCards(Driver(mode=code)).read() == {}
    (card,) = NvmlCards(Driver(mode=pynvml.NVML_ERROR_TIMEOUT)).read().values()
    assert card == Seen("GPU-a", 0, fault="Timeout")
