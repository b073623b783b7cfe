"""Cards, nodes and pods for tests, in few words."""

from typing import Any

import msgspec

from hamikit import names
from hamikit.codec import RegisteredDevice, encode_register
from hamikit.objects import Node, Pod

GPU, MEM, PERCENT, CORES = (
    names.RESOURCE_COUNT,
    names.RESOURCE_MEMORY,
    names.RESOURCE_MEMORY_PERCENTAGE,
    names.RESOURCE_CORES,
)


def device(uuid: str, index: int = 0, **changes: Any) -> RegisteredDevice:
    """A card of 8000 MiB that ten tasks may share."""
    given: dict[str, Any] = {
        "id": uuid,
        "index": index,
        "count": 10,
        "devmem": 8000,
        "devcore": 100,
        "type": "NVIDIA-Test",
        "mode": "hami-core",
        "health": True,
    }
    return RegisteredDevice(**{**given, **changes})


def node_object(name: str, *devices: RegisteredDevice, **annotations: str) -> dict[str, Any]:
    """A late-binding node as the API has it; annotations by the names of hamikit.names."""
    more = {getattr(names, key): value for key, value in annotations.items()}
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "annotations": {
                names.NODE_BINDING: names.BINDING_LATE,
                **({names.NODE_REGISTER: encode_register(devices)} if devices else {}),
                **more,
            },
        },
        "status": {"allocatable": {GPU: str(sum(d.count for d in devices))}},
    }


def make_node(name: str, *devices: RegisteredDevice, **annotations: str) -> Node:
    """The same, decoded."""
    return msgspec.convert(node_object(name, *devices, **annotations), Node)


def container(name: str = "main", **limits: int) -> dict[str, Any]:
    """A container; limits are gpu, mem, percent, cores."""
    known = {"gpu": GPU, "mem": MEM, "percent": PERCENT, "cores": CORES}
    return {
        "name": name,
        "resources": {"limits": {known[key]: str(value) for key, value in limits.items()}},
    }


def pod_object(
    name: str,
    *containers: dict[str, Any],
    init: tuple[dict[str, Any], ...] = (),
    uid: str = "",
    node: str = "",
    phase: str = "Pending",
    labelled: bool = True,
    **annotations: str,
) -> dict[str, Any]:
    """A device pod as the API has it; `init` containers come first."""
    more = {getattr(names, key): value for key, value in annotations.items()}
    labels = {names.LABEL_DEVICE_POD: names.LABEL_DEVICE_POD_VALUE} if labelled else {}
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid or f"uid-{name}",
            "resourceVersion": "1",
            "labels": labels,
            "annotations": more,
        },
        "spec": {
            "containers": list(containers) or [container(gpu=1, mem=1000)],
            "initContainers": list(init),
            "nodeName": node,
        },
        "status": {"phase": phase},
    }


def make_pod(name: str, *containers: dict[str, Any], **settings: Any) -> Pod:
    """The same, decoded."""
    return msgspec.convert(pod_object(name, *containers, **settings), Pod)
