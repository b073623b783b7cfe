"""What one container was granted and says it uses, whichever limiter keeps its account."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from hamikit import names
from hamikit.codec import CodecError, GrantedDevice, decode_grant
from hamikit.hami_region import HamiRegion
from hamikit.objects import Pod
from hamikit.region import Control, Kind, OverheadPolicy, Usage, UsageDevice

MIB: Final = 1 << 20
Held = Mapping[tuple[int, Kind], int]
"""Bytes by device and kind."""
_BUFFERS: Final = tuple(kind for kind in Kind if kind not in (Kind.CONTEXT, Kind.MODULE))


@dataclass(frozen=True, slots=True)
class DeviceAccount:
    """One device of a container; None is what nobody knows.

    `limit_bytes` and `core_percent` are None where there is no limit. `used_bytes` is what counts
    against the limit.
    """

    index: int
    uuid: str
    limit_bytes: int | None = None
    core_percent: int | None = None
    used_bytes: int | None = None
    buffer_bytes: int | None = None
    context_bytes: int | None = None
    module_bytes: int | None = None
    counters: UsageDevice | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """One container; `last_activity_s` is Unix time, None where nothing was seen."""

    devices: tuple[DeviceAccount, ...]
    last_activity_s: float | None = None
    unlimited: bool | None = None


def granted(pod: Pod, container: str) -> tuple[GrantedDevice, ...]:
    """A container's devices by the pod's annotation; nothing where it says nothing readable."""
    try:
        slots = decode_grant(pod.metadata.annotations.get(names.POD_DEVICES_ALLOCATED, ""))
    except CodecError:
        return ()
    for position, candidate in enumerate(pod.all_containers):
        if candidate.name == container and position < len(slots):
            return slots[position]
    return ()


def own_account(control: Control, usage: Usage | None) -> Account:
    """From our files: limits as the host wrote them, all else as the tenant's limiter counts."""
    if usage is None:
        return Account(tuple(_limits(control)))
    strict = control.overhead_policy is OverheadPolicy.STRICT
    held = _held(usage)
    devices = tuple(_own_device(limits, usage, held, strict=strict) for limits in _limits(control))
    last_ns = max((process.last_activity_ns for process in usage.processes), default=0)
    return Account(devices, last_ns / 1e9 if last_ns else None, usage.unlimited_starts > 0)


def _own_device(limits: DeviceAccount, usage: Usage, held: Held, *, strict: bool) -> DeviceAccount:
    counters, index = usage.devices[limits.index], limits.index
    context, module = held.get((index, Kind.CONTEXT), 0), held.get((index, Kind.MODULE), 0)
    return replace(
        limits,
        used_bytes=counters.used_bytes + (context + module if strict else 0),
        buffer_bytes=sum(held.get((index, kind), 0) for kind in _BUFFERS),
        # The limiter does not record these everywhere: 0 may mean that nobody looked.
        context_bytes=context or None,
        module_bytes=module or None,
        counters=counters,
    )


def _limits(control: Control) -> Iterable[DeviceAccount]:
    for index, device in enumerate(control.devices):
        # 0 says that there is no limit: a limit of 0 bytes would be wrong.
        memory, core = device.memory_limit_bytes, device.core_limit_percent
        yield DeviceAccount(index, device.uuid, memory or None, core % 100 or None)


def _held(usage: Usage) -> Held:
    """What all processes hold together."""
    held: dict[tuple[int, Kind], int] = {}
    for process in usage.processes:
        for place, amount in process.shares.items():
            held[place] = held.get(place, 0) + amount
    return held


def hami_account(region: HamiRegion, grants: Iterable[GrantedDevice]) -> Account:
    """From a region of HAMi's: limits by the grant, because the tenant could change the region's.

    Devices that were not granted are left out: their names are the tenant's word alone.
    """
    by_uuid: Mapping[str, GrantedDevice] = {grant.uuid: grant for grant in grants}
    devices = tuple(
        _hami_device(region, index, by_uuid[device.uuid])
        for index, device in enumerate(region.devices)
        if device.uuid in by_uuid
    )
    return Account(devices, float(region.last_kernel_s) or None)


def _hami_device(region: HamiRegion, index: int, grant: GrantedDevice) -> DeviceAccount:
    uses = [process.uses[index] for process in region.processes]
    return DeviceAccount(
        index=index,
        uuid=grant.uuid,
        limit_bytes=grant.memory_mib * MIB or None,
        core_percent=grant.cores % 100 or None,
        used_bytes=sum(use.total_bytes for use in uses),
        buffer_bytes=sum(use.buffer_bytes for use in uses),
        context_bytes=sum(use.context_bytes for use in uses),
        module_bytes=sum(use.module_bytes for use in uses),
    )
