"""Nodes and pods for benchmarks, as the API server shows them."""

import msgspec

from hamikit import names
from hamikit.codec import RegisteredDevice, encode_register
from hamikit.devices import NVIDIA
from hamikit.objects import Node

CARDS = 8


def node(name: str) -> Node:
    """A late-binding node of eight cards."""
    devices = [
        RegisteredDevice(
            id=f"GPU-{name}-{i}", index=i, count=10, devmem=81920, devcore=100,
            type="NVIDIA-H100", numa=i // 4, mode="hami-core", health=True,
        )
        for i in range(CARDS)
    ]  # fmt: skip
    annotations = {
        names.NODE_REGISTER: encode_register(devices),
        names.NODE_BINDING: names.BINDING_LATE,
    }
    value = {
        "metadata": {"name": name, "uid": name, "annotations": annotations},
        "status": {"allocatable": {NVIDIA.count: str(CARDS * 10)}},
    }
    return msgspec.convert(value, Node)


def pod(number: int, memory_mib: int = 3000) -> dict[str, object]:
    """A pod that asks for a slice."""
    limits = {NVIDIA.count: "1", NVIDIA.memory: str(memory_mib), NVIDIA.cores: "10"}
    return {
        "metadata": {
            "name": f"p{number}",
            "namespace": "default",
            "uid": f"uid-{number}",
            "labels": {names.LABEL_DEVICE_POD: names.LABEL_DEVICE_POD_VALUE},
        },
        "spec": {"containers": [{"name": "c", "resources": {"limits": limits}}]},
    }
