"""The node's cards through NVML: what there is, and the few calls that change it."""

from collections.abc import Callable, Iterator
from ctypes import byref, c_uint
from typing import Any, TypeVar

import pynvml
import structlog

from hami_mig_manager.deadline import Patience
from hami_mig_manager.state import Card, Compute, Instance, Spot
from hami_mig_manager.verdict import NvmlFailed
from hamikit.gpu import Nvml
from hamikit.instances import MigProfile
from hamikit.profiles import offered

log = structlog.get_logger()

T = TypeVar("T")
_UNKNOWN_HERE = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
"""A card that does not know a thing, a driver that does not."""


class NvmlCards:
    """Every card that can be divided; no call takes longer than `deadline_s`."""

    def __init__(self, nvml: Nvml, *, deadline_s: float = 10.0) -> None:
        self._nvml, self._wait = nvml, Patience(deadline_s)
        # NVML's numbers of a card's profiles by name; they never change.
        self._numbers: dict[str, dict[str, int]] = {}

    def read(self) -> dict[str, Card]:
        """All cards that can be divided, by UUID; one that fails has a fault.

        Raises:
            GpuError: NVML cannot be used at all.
        """
        return {card.uuid: card for card in self._wait(lambda: list(self._cards()))}

    def create(self, spot: Spot) -> None:
        """Make a GPU instance and its compute instance, or nothing.

        Raises:
            NvmlFailed: it could not be made.
            GpuError: NVML cannot be used.
        """
        self._change(lambda nvml: self._create(nvml, spot))

    def complete(self, instance: Instance) -> None:
        """Make the compute instance of a GPU instance; raises as `create`."""

        def work(nvml: Any) -> None:
            handle = nvml.nvmlDeviceGetHandleByUUID(instance.spot.card)
            _compute(nvml, nvml.nvmlDeviceGetGpuInstanceById(handle, instance.id))

        self._change(work)

    def destroy(self, instance: Instance) -> None:
        """Destroy compute instances, then the GPU instance; raises as `create`.

        NVML refuses while a process uses it.
        """
        self._change(lambda nvml: _destroy(nvml, instance))

    def set_mode(self, card: str, *, enabled: bool) -> None:
        """Have a card divided or whole from now on or from its next reset; raises as `create`."""

        def work(nvml: Any) -> None:
            handle = nvml.nvmlDeviceGetHandleByUUID(card)
            status = nvml.nvmlDeviceSetMigMode(handle, int(enabled))
            if status != nvml.NVML_SUCCESS:
                log.warning("mode of a card is pending", card=card, status=status)

        self._change(work)

    def close(self) -> None:
        """Let go of the driver until the next call."""
        self._wait(self._nvml.close)

    def _change(self, work: Callable[[Any], None]) -> None:
        nvml = self._nvml.open()
        try:
            self._wait(lambda: work(nvml))
        except nvml.NVMLError as error:
            raise NvmlFailed(error.value, str(error)) from error

    def _cards(self) -> Iterator[Card]:
        for card, handle in self._nvml.handles():
            nvml = self._nvml.open()
            try:
                current, pending = nvml.nvmlDeviceGetMigMode(handle)
            except nvml.NVMLError as error:
                if error.value not in _UNKNOWN_HERE:
                    yield Card(card.uuid, card.index, fault=str(error))
                continue
            mode = (bool(current), bool(pending))
            try:
                yield self._card(nvml, handle, (card.uuid, card.index), mode)
            except nvml.NVMLError as error:
                log.warning("card cannot be read", card=card.uuid, error=str(error))
                yield Card(card.uuid, card.index, *mode, fault=str(error))

    def _card(
        self, nvml: Any, handle: Any, which: tuple[str, int], mode: tuple[bool, bool]
    ) -> Card:
        if not mode[0]:
            return Card(*which, *mode, busy=_busy(nvml, handle))
        found = list(offered(nvml, handle))
        self._numbers[which[0]] = {each.name: each.number for each in found}
        devices = list(_devices(nvml, handle))
        instances = tuple(
            _instance(nvml, which[0], gpu_instance, each.name, devices)
            for each in found
            for gpu_instance in _gpu_instances(nvml, handle, each.number, each.most)
        )
        profiles = tuple(
            MigProfile(each.name, each.memory_mib, 0, each.slices, each.placements)
            for each in found
        )
        busy = any(instance.busy for instance in instances)
        return Card(*which, *mode, profiles, instances, busy)

    def _create(self, nvml: Any, spot: Spot) -> None:
        handle = nvml.nvmlDeviceGetHandleByUUID(spot.card)
        number = self._numbers.get(spot.card, {}).get(spot.profile)
        if number is None:
            raise NvmlFailed(nvml.NVML_ERROR_NOT_FOUND, f"no profile {spot.profile}")
        place = nvml.c_nvmlGpuInstancePlacement_t(start=spot.start, size=spot.size)
        made = nvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, number, byref(place))
        try:
            _compute(nvml, made)
        except nvml.NVMLError as error:
            try:
                nvml.nvmlGpuInstanceDestroy(made)
            except nvml.NVMLError as left:
                text = f"{error}; and the GPU instance cannot be destroyed: {left}"
                raise NvmlFailed(error.value, text, half_made=True) from error
            raise


def _gpu_instances(nvml: Any, handle: Any, number: int, most: int) -> list[Any]:
    found, count = (nvml.c_nvmlGpuInstance_t * max(most, 1))(), c_uint(most)
    nvml.nvmlDeviceGetGpuInstances(handle, number, found, byref(count))
    return list(found[: count.value])


def _devices(nvml: Any, handle: Any) -> Iterator[tuple[int, Compute, bool]]:
    """Every MIG device: the id of its GPU instance, its compute instance, whether it is busy."""
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            device = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_NOT_FOUND:
                continue
            raise
        compute = Compute(
            nvml.nvmlDeviceGetComputeInstanceId(device), _text(nvml.nvmlDeviceGetUUID(device))
        )
        yield nvml.nvmlDeviceGetGpuInstanceId(device), compute, _busy(nvml, device)


def _instance(
    nvml: Any, card: str, found: Any, profile: str, devices: list[tuple[int, Compute, bool]]
) -> Instance:
    info = nvml.nvmlGpuInstanceGetInfo(found)
    mine = [(compute, busy) for number, compute, busy in devices if number == info.id]
    spot = Spot(card, profile, info.placement.start, info.placement.size)
    computes = tuple(sorted((compute for compute, _ in mine), key=lambda c: c.id))
    return Instance(spot, info.id, computes, any(busy for _, busy in mine))


def _busy(nvml: Any, device: Any) -> bool:
    """Whether processes use it; one that does not tell counts as used."""
    try:
        if nvml.nvmlDeviceGetComputeRunningProcesses(device):
            return True
    except nvml.NVMLError as error:
        log.warning("processes cannot be told", error=str(error))
        return True
    try:
        return bool(nvml.nvmlDeviceGetGraphicsRunningProcesses(device))
    except nvml.NVMLError as error:
        # Compute cards and their instances do not draw, and may say so.
        if error.value in _UNKNOWN_HERE:
            return False
        log.warning("processes cannot be told", error=str(error))
        return True


def _compute(nvml: Any, gpu_instance: Any) -> None:
    """Make the compute instance that has all of a GPU instance."""
    found = []
    for kind in range(nvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            info = nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
                gpu_instance, kind, nvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED, version=2
            )
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_INVALID_ARGUMENT):
                continue
            raise
        found.append((info.sliceCount, -kind, info.id))
    if not found:
        raise NvmlFailed(nvml.NVML_ERROR_NOT_SUPPORTED, "no compute instance fits")
    nvml.nvmlGpuInstanceCreateComputeInstance(gpu_instance, max(found)[2])


def _destroy(nvml: Any, instance: Instance) -> None:
    handle = nvml.nvmlDeviceGetHandleByUUID(instance.spot.card)
    try:
        found = nvml.nvmlDeviceGetGpuInstanceById(handle, instance.id)
        info = nvml.nvmlGpuInstanceGetInfo(found)
        if (info.placement.start, info.placement.size) != (instance.spot.start, instance.spot.size):
            return  # another one by now, which the next look will see
        for compute in instance.computes:
            one = nvml.nvmlGpuInstanceGetComputeInstanceById(found, compute.id)
            nvml.nvmlComputeInstanceDestroy(one)
        nvml.nvmlGpuInstanceDestroy(found)
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_NOT_FOUND:
            raise


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
