"""The MIG profiles that a card offers, as NVML tells them."""

from collections.abc import Iterator
from ctypes import byref, c_uint
from dataclasses import dataclass
from typing import Any

from hamikit.instances import Placement


@dataclass(frozen=True, slots=True)
class Offered:
    """A GPU instance profile of a card in MIG mode.

    `number` is what NVML calls it, `most` how many instances of it there can be at once.
    """

    number: int
    name: str
    memory_mib: int
    slices: int
    multiprocessors: int
    most: int
    placements: tuple[Placement, ...]


def offered(nvml: Any, handle: Any) -> Iterator[Offered]:
    """Every profile of a card; a kind that this card does not know is left out.

    Raises:
        NVMLError: the card does not tell.
    """
    for kind in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            info = nvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, kind, version=2)
            places = _placements(nvml, handle, info.id)
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_INVALID_ARGUMENT):
                continue
            raise
        name = info.name.decode() if isinstance(info.name, bytes) else info.name
        yield Offered(
            int(info.id),
            name.removeprefix("MIG "),
            int(info.memorySizeMB),
            int(info.sliceCount),
            int(info.multiprocessorCount),
            int(info.instanceCount),
            places,
        )


def _placements(nvml: Any, handle: Any, profile: int) -> tuple[Placement, ...]:
    ask, count = nvml.nvmlDeviceGetGpuInstancePossiblePlacements, c_uint(0)
    ask(handle, profile, None, byref(count))
    found = (nvml.c_nvmlGpuInstancePlacement_t * max(count.value, 1))()
    ask(handle, profile, found, byref(count))
    return tuple(Placement(place.start, place.size) for place in found[: count.value])
