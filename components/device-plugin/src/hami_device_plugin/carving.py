"""The MIG instances that a pod's containers were given, and how they come into a container."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hami_device_plugin.cdi import CdiError, Edits, NodeSpec, version_order
from hami_device_plugin.grant import ContainerGrant, GrantError, Instance, PodGrant, Slice
from hami_device_plugin.mig import Division
from hami_device_plugin.refusal import Refusal
from hamikit import names
from hamikit.codec import CodecError, RegisteredDevice, decode_grant
from hamikit.devices import DeviceFamily
from hamikit.mig import MigAllocation, decode_mig_allocations
from hamikit.objects import Pod

MINORS = Path("/proc/driver/nvidia-caps/mig-minors")
_FIRST_MINOR, _GPU_INSTANCES, _PER_INSTANCE = 3, 15, 9
"""How the driver numbers capabilities: a card has 15 GPU instances, each with 8 compute ones."""


def with_instances(
    grant: PodGrant,
    pod: Pod,
    cards: Mapping[str, RegisteredDevice],
    family: DeviceFamily,
    starting: Collection[str],
) -> PodGrant:
    """The grant with the instances that its slices are on cards in MIG mode.

    Those of the `starting` containers must have been made.

    Raises:
        GrantError: a slice has no reservation, or one that does not fit it.
        Refusal: an instance has not been made yet, or its card is not in MIG mode now.
    """
    text = pod.metadata.annotations.get(names.POD_MIG_ALLOCATIONS, "")
    if not text and not any(cards[uuid].mode == names.MODE_MIG for uuid in grant.uuids):
        return grant
    try:
        found = decode_mig_allocations(text)
    except CodecError as error:
        raise GrantError(f"{_of(pod)} cannot be read: {error}; {_ANEW}") from error
    reserved = {(one.container_index, one.device_index): one for one in found}
    slots = decode_grant(grant.text)
    positions = {container.name: n for n, container in enumerate(pod.all_containers)}

    def carved(container: ContainerGrant) -> ContainerGrant:
        number = positions[container.name]
        places = [i for i, one in enumerate(slots[number]) if one.vendor == family.vendor]
        slices = tuple(
            _made(part, reserved.get((number, place)), cards[part.uuid], pod)
            for part, place in zip(container.slices, places, strict=True)
        )
        _one_kind(slices, container.name, pod)
        return msgspec.structs.replace(container, slices=slices)

    containers = (carved(c) if c.name in starting else c for c in grant.containers)
    return msgspec.structs.replace(grant, containers=tuple(containers))


_ANEW = "delete the pod, so that it is scheduled anew"


def _of(pod: Pod) -> str:
    return f"the MIG instances of pod {pod.key} ({names.POD_MIG_ALLOCATIONS})"


def _made(part: Slice, reserved: MigAllocation | None, card: RegisteredDevice, pod: Pod) -> Slice:
    if reserved is not None and reserved.gpu_uuid != part.uuid:
        reserved = None
    if card.mode != names.MODE_MIG and reserved is None:
        return part
    if card.mode != names.MODE_MIG:
        # Never the whole card instead of the instance.
        raise Refusal(
            "mig-off",
            f"pod {pod.key} has a MIG instance of card {part.uuid}, which is not in MIG mode now, "
            "or does not say so; see the node's mig-manager and the device plugin's log",
            late=True,
        )
    if reserved is None:
        raise GrantError(f"{_of(pod)} have none on card {part.uuid}, which is in MIG mode; {_ANEW}")
    gi, ci = reserved.gpu_instance_id, reserved.compute_instance_id
    if reserved.mig_uuid is None or gi is None or ci is None:
        place = reserved.placement
        raise Refusal(
            "mig-not-made",
            f"pod {pod.key} waits for the MIG instance {reserved.profile} at {place.start} of card "
            f"{part.uuid}, which mig-manager has not made yet",
            late=True,
        )
    return msgspec.structs.replace(part, instance=Instance(reserved.mig_uuid, gi, ci))


def _one_kind(slices: Sequence[Slice], container: str, pod: Pod) -> None:
    if len({part.instance is None for part in slices}) > 1:
        raise GrantError(
            f"container {container!r} of pod {pod.key} was granted MIG instances and shares of "
            "cards, but CUDA shows a program only one or the other; ask for one kind with the "
            f"annotation {names.POD_VGPU_MODE}"
        )


def doubly_given(grant: PodGrant, others: Sequence[PodGrant]) -> str | None:
    """Why a pod must wait for an instance that another one's containers still hold."""
    mine = {i.uuid for c in grant.containers for p in c.slices if (i := p.instance)}
    for other in others:
        held = {i.uuid for c in other.containers for p in c.slices if (i := p.instance)}
        if other.uid != grant.uid and (both := mine & held):
            return f"MIG instance {min(both)} is still held by {other.key}"
    return None


class Capabilities:
    """The device nodes that give a container access to an instance, by the driver's numbering."""

    def __init__(self, read: Callable[[], str] = MINORS.read_text) -> None:
        self._read = read

    def nodes(self, minor: int, instance: Instance) -> Edits:
        """The card's node and the two of the instance; `minor` is the card's."""
        gi, ci = instance.gpu_instance, instance.compute_instance
        access = f"gpu{minor}/gi{gi}"
        first = _FIRST_MINOR + (minor * _GPU_INSTANCES + gi) * _PER_INSTANCE
        told = self._told()
        caps = (
            told.get(f"{access}/access", first),
            told.get(f"{access}/ci{ci}/access", first + 1 + ci),
        )
        paths = [f"/dev/nvidia{minor}", *(f"/dev/nvidia-caps/nvidia-cap{cap}" for cap in caps)]
        return {"deviceNodes": [{"path": path} for path in paths]}

    def _told(self) -> dict[str, int]:
        """What the driver says where it does: a line is like `gpu0/gi1/ci0/access 13`."""
        try:
            text = self._read()
        except OSError:
            return {}
        return {path: int(cap) for path, cap in re.findall(r"^(gpu\S+) (\d+)$", text, re.MULTILINE)}


def instance_edits(
    specs: Sequence[NodeSpec],
    container: ContainerGrant,
    divisions: Callable[[str], Division | None],
    capabilities: Capabilities,
) -> tuple[str, list[Edits]]:
    """The CDI version and the edits that bring a container's instances into it.

    An instance that the node's specification does not name was made after it was written: then the
    driver's numbering tells its nodes, and the specification what all devices need.

    Raises:
        CdiError: the node has no specification, or a card is not known.
    """
    if not specs:
        raise CdiError(
            f"the node has no CDI specification of {names.CDI_KIND_NVIDIA}; generate one with "
            "`nvidia-ctk cdi generate`"
        )
    version, edits = specs[-1].version, [specs[-1].common]
    for part in container.slices:
        if part.instance is None:
            continue
        spec = next((s for s in reversed(specs) if part.instance.uuid in s.devices), None)
        if spec is not None:
            version = max(version, spec.version, key=version_order)
            edits += [spec.common, spec.devices[part.instance.uuid]]
            continue
        division = divisions(part.uuid)
        if division is None or division.minor is None:
            raise CdiError(f"card {part.uuid} has an instance but is not in MIG mode; {_ANEW}")
        edits.append(capabilities.nodes(division.minor, part.instance))
    return version, edits


def visible(container: ContainerGrant) -> str:
    """The devices of a container as an NVIDIA runtime is told them."""
    return ",".join(p.instance.uuid if p.instance else p.uuid for p in container.slices)


def our_edits(shown: str) -> Mapping[str, Any]:
    """An instance limits its programs itself: the limiter stays out, only the name is told."""
    return {"env": [f"{names.ENV_VISIBLE_DEVICES}={shown}"]}
