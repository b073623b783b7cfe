"""The profiles of a card, told by a stand-in for NVML."""

from types import SimpleNamespace

import pynvml
import pytest

from hamikit.instances import Placement
from hamikit.profiles import Offered, offered


class Binding(SimpleNamespace):
    """Two kinds, of which a card knows the second; the name as bytes, as older bindings tell it."""

    NVML_GPU_INSTANCE_PROFILE_COUNT = 2
    NVML_ERROR_NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
    NVML_ERROR_INVALID_ARGUMENT = pynvml.NVML_ERROR_INVALID_ARGUMENT
    NVMLError = pynvml.NVMLError
    c_nvmlGpuInstancePlacement_t = pynvml.c_nvmlGpuInstancePlacement_t  # noqa: N815

    def nvmlDeviceGetGpuInstanceProfileInfo(self, _handle, kind, version):  # noqa: N802 - NVML's
        """Fails for the first kind."""
        assert version == 2
        if kind == 0:
            raise pynvml.NVMLError(self.first)
        return SimpleNamespace(
            id=14,
            name=b"MIG 2g.10gb",
            memorySizeMB=9856,
            sliceCount=2,
            multiprocessorCount=28,
            instanceCount=3,
        )

    def nvmlDeviceGetGpuInstancePossiblePlacements(self, _handle, _id, found, count):  # noqa: N802
        """Says how many first, then which."""
        if found is not None:
            found[0].start, found[0].size = 4, 2
        count._obj.value = 1


@pytest.mark.parametrize("first", ["NOT_SUPPORTED", "INVALID_ARGUMENT"])
def test_kinds_that_a_card_does_not_know_are_left_out(first):
    """Each other is told whole."""
    nvml = Binding(first=getattr(pynvml, f"NVML_ERROR_{first}"))
    places = (Placement(4, 2),)
    assert list(offered(nvml, None)) == [Offered(14, "2g.10gb", 9856, 2, 28, 3, places)]


def test_a_card_that_does_not_tell_is_no_card_without_profiles():
    """Its error goes to whoever asked."""
    with pytest.raises(pynvml.NVMLError_Unknown):
        list(offered(Binding(first=pynvml.NVML_ERROR_UNKNOWN), None))
