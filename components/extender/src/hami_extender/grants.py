"""What a placed pod carries: the annotations that its families' plugins read."""

from collections.abc import Sequence

from hamikit import names
from hamikit.ascend import template_name
from hamikit.codec import Slots, encode_grant, go_json
from hamikit.devices import EXTRAS_RUNTIME_INFO, DeviceFamily
from hamikit.mig import encode_mig_allocations
from hamikit.objects import Pod
from hamikit.selectors import soft_wanted


def grant_annotations(
    families: Sequence[DeviceFamily], pod: Pod, node: str, slots: Slots, seconds: int
) -> dict[str, str]:
    """The grant of a pod on a node at this Unix time, for each family that it has devices of."""
    found = {names.POD_NODE: node, names.POD_TIME: str(seconds)}
    for family in families:
        own = tuple(tuple(d for d in slot if d.vendor == family.vendor) for slot in slots)
        if any(own):
            grant = encode_grant(own)
            found[family.to_allocate_annotation] = grant
            found[family.allocated_annotation] = grant
            found |= _extras(family, pod, own, seconds)
    instances = encode_mig_allocations(slots)
    # What an earlier attempt of another scheduler left would speak of cards that it has not.
    if instances or names.POD_MIG_ALLOCATIONS in pod.metadata.annotations:
        found[names.POD_MIG_ALLOCATIONS] = instances
    return found


def _extras(family: DeviceFamily, pod: Pod, slots: Slots, seconds: int) -> dict[str, str]:
    """What only this kind of family reads."""
    if family.extras != EXTRAS_RUNTIME_INFO:
        return {}
    soft = soft_wanted(pod.metadata.annotations, family)
    entries: list[dict[str, str | int]] = []
    for device in (device for slot in slots for device in slot):
        template = "" if soft else template_name(family, device.memory_mib)
        # Go leaves out what is empty: a whole card, or a share, has no template.
        named = {"temp": template} if template else {}
        entries.append(
            {"UUID": device.uuid, **named, "memory": device.memory_mib, "core": device.cores}
        )
    return {names.POD_PREDICATE_TIME: str(seconds), family.runtime_info: go_json(entries)}
