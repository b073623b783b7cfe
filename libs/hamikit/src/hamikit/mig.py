"""MIG instances in annotations: those that a pod was given, and where a card has no room."""

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from hamikit.codec import CodecError, GrantedDevice, Slots
from hamikit.instances import MigInstance, Placement


class MigAllocation(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One instance; the last three are known once it has been made, all or none.

    `container_index` counts init containers first, `device_index` within the container.
    """

    container_index: int
    device_index: int
    gpu_uuid: str = msgspec.field(name="gpuUUID")
    profile: str
    placement: Placement
    mig_uuid: str | None = msgspec.field(default=None, name="migUUID")
    gpu_instance_id: int | None = msgspec.field(default=None, name="gpuInstanceID")
    compute_instance_id: int | None = msgspec.field(default=None, name="computeInstanceID")

    @property
    def realised(self) -> bool:
        """Whether the instance exists."""
        return self.mig_uuid is not None


_ALLOCATIONS = msgspec.json.Decoder(list[MigAllocation])


def decode_mig_allocations(text: str) -> tuple[MigAllocation, ...]:
    """Read the annotation `hami.io/vgpu-mig-allocations`; empty text says none.

    Raises:
        CodecError: any entry breaks a rule of the format; then none counts.
    """
    if not text:
        return ()
    try:
        found = _ALLOCATIONS.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CodecError(f"MIG allocations are unreadable: {error}") from error
    places = set()
    for entry in found:
        if fault := _fault(entry):
            raise CodecError(f"MIG allocation {entry.container_index}/{entry.device_index} {fault}")
        places.add((entry.container_index, entry.device_index))
    if len(places) < len(found):
        raise CodecError("MIG allocations name one place of a container twice")
    return tuple(found)


def _fault(entry: MigAllocation) -> str:
    identity = (entry.mig_uuid, entry.gpu_instance_id, entry.compute_instance_id)
    if entry.container_index < 0 or entry.device_index < 0:
        return "has a negative index"
    if not entry.gpu_uuid or not entry.profile:
        return "lacks a card or a profile"
    if entry.placement.start < 0 or entry.placement.size <= 0:
        return "has no slices"
    if any(part is None for part in identity) and any(part is not None for part in identity):
        return "has half an identity: all of migUUID, gpuInstanceID, computeInstanceID or none"
    return ""


def encode_mig_allocations(slots: Slots) -> str:
    """Write the annotation for the instances of a grant; empty where there is none."""
    entries = [
        MigAllocation(
            number,
            place,
            device.uuid,
            device.instance.profile,
            device.instance.placement,
            device.instance.mig_uuid,
            device.instance.gpu_instance_id,
            device.instance.compute_instance_id,
        )
        for number, slot in enumerate(slots)
        for place, device in enumerate(slot)
        if device.instance is not None
    ]
    return msgspec.json.encode(entries).decode() if entries else ""


def with_instances(slots: Slots, allocations: tuple[MigAllocation, ...]) -> Slots:
    """The grant with its instances; a record of another card than was granted says nothing."""
    if not allocations:
        return slots
    found = {(one.container_index, one.device_index): one for one in allocations}
    return tuple(
        tuple(_made(device, found.get((number, place))) for place, device in enumerate(slot))
        for number, slot in enumerate(slots)
    )


def _made(device: GrantedDevice, record: MigAllocation | None) -> GrantedDevice:
    if record is None or record.gpu_uuid != device.uuid:
        return device
    instance = MigInstance(
        record.profile,
        record.placement,
        record.mig_uuid,
        record.gpu_instance_id,
        record.compute_instance_id,
    )
    return replace(device, instance=instance)


class BlockedPlacement(msgspec.Struct, frozen=True, rename="camel"):
    """Slices of a card where nothing can be made, and why; `since` in whole Unix seconds."""

    gpu_uuid: str = msgspec.field(name="gpuUUID")
    profile: str
    placement: Placement
    reason: str
    since: int


_BLOCKED = msgspec.json.Decoder(list[BlockedPlacement])


def decode_blocked(text: str) -> tuple[BlockedPlacement, ...]:
    """Read the annotation `hami.io/mig-blocked` of a node; empty text says nothing is blocked.

    Raises:
        CodecError: not such a JSON array.
    """
    try:
        return tuple(_BLOCKED.decode(text)) if text else ()
    except (msgspec.DecodeError, RecursionError) as error:
        raise CodecError(f"blocked placements are unreadable: {error}") from error


def encode_blocked(blocked: Iterable[BlockedPlacement]) -> str | None:
    """Write the annotation, ordered by place; None, which is no annotation, without any."""
    ordered = sorted(blocked, key=lambda b: (b.gpu_uuid, b.profile, b.placement.start))
    return msgspec.json.encode(ordered).decode() if ordered else None
