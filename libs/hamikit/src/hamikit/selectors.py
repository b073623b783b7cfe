"""A pod's wishes about which devices it gets, as its annotations spell them."""

from collections.abc import Mapping
from dataclasses import dataclass

from hamikit import names
from hamikit.codec import GO_TRUE
from hamikit.devices import DeviceFamily


@dataclass(frozen=True, slots=True)
class Selectors:
    """A pod's wishes about which devices and in which order, as the annotations spell them."""

    use_type: str = ""
    nouse_type: str = ""
    use_uuid: str = ""
    nouse_uuid: str = ""
    vgpu_mode: str = ""
    numa_bind: bool = False
    node_policy: str = ""
    gpu_policy: str = ""
    weights: str = ""


def _truth(text: str) -> bool:
    """Go's ParseBool for true; anything else is not set."""
    return text in GO_TRUE


def selectors_of(annotations: Mapping[str, str], family: DeviceFamily) -> Selectors:
    """The device wishes among a pod's annotations."""
    get = annotations.get
    return Selectors(
        use_type=get(family.use_type, ""),
        nouse_type=get(family.nouse_type, ""),
        use_uuid=get(family.use_uuid, ""),
        nouse_uuid=get(family.nouse_uuid, ""),
        vgpu_mode=get(family.mode, ""),
        numa_bind=_truth(get(family.numa_bind, "")),
        node_policy=get(names.POD_NODE_POLICY, ""),
        gpu_policy=get(names.POD_GPU_POLICY, ""),
        weights=get(names.POD_SCORING_WEIGHTS, ""),
    )


def soft_wanted(annotations: Mapping[str, str], family: DeviceFamily) -> bool:
    """Whether a pod wants the family's cards shared without templates."""
    return bool(family.soft_mode) and annotations.get(family.mode) == family.soft_mode
