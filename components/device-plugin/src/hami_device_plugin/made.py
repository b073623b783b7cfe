"""MIG instances that somebody made, as NVML tells them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hamikit.profiles import offered


@dataclass(frozen=True, slots=True)
class Made:
    """A MIG device on a card; `whole` when it has all compute slices of its GPU instance."""

    uuid: str
    card: str
    profile: str
    gpu_instance: int
    compute_instance: int
    whole: bool = True


def instances(nvml: Any, handle: Any, card: str) -> Iterator[Made]:
    """Every MIG device of a card in MIG mode.

    Raises:
        NVMLError: the card does not tell.
    """
    profiles: dict[int, str] = {}
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            device = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_NOT_FOUND:
                raise
            continue
        profiles = profiles or {each.number: each.name for each in offered(nvml, handle)}
        number = nvml.nvmlDeviceGetGpuInstanceId(device)
        info = nvml.nvmlGpuInstanceGetInfo(nvml.nvmlDeviceGetGpuInstanceById(handle, number))
        has = nvml.nvmlDeviceGetAttributes(device)
        yield Made(
            _text(nvml.nvmlDeviceGetUUID(device)),
            card,
            profiles[info.profileId],
            number,
            nvml.nvmlDeviceGetComputeInstanceId(device),
            has.computeInstanceSliceCount == has.gpuInstanceSliceCount,
        )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
