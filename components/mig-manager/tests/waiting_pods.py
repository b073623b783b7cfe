"""Pods that wait for a card, and the node that might help them."""

import msgspec

from hami_mig_manager.demand import Site, Waiting
from hamikit import names

SINCE = "2026-11-24T01:00:00Z"
SINCE_S = 1795482000.0
CARDS = [
    {"id": "GPU-a", "type": "NVIDIA-A100", "devmem": 40960, "health": True, "mode": "hami-core"},
    {"id": "GPU-b", "type": "NVIDIA-A30", "devmem": 24576, "health": True, "mode": "mig"},
]


def site(*taints, register=None, **labels):
    """This node."""
    text = msgspec.json.encode(CARDS).decode() if register is None else register
    meta = {"name": "n", "labels": labels, "annotations": {names.NODE_REGISTER: text}}
    return msgspec.convert({"metadata": meta, "spec": {"taints": list(taints)}}, Site)


def pod(*containers, mode="mig", reason="Unschedulable", since=SINCE, spec=(), **annotations):
    """A pod that waits; containers are limits."""
    told = [
        {"type": "Ready", "status": "False", "reason": "Unschedulable"},
        {"type": "PodScheduled", "status": "False", "reason": reason, "lastTransitionTime": since},
    ]
    limits = containers or ({names.RESOURCE_COUNT: "1", names.RESOURCE_MEMORY: "8000"},)
    plain = {"schedulerName": names.SCHEDULER_NAME, "containers": [
        {"name": f"c{n}", "resources": {"limits": found}} for n, found in enumerate(limits)
    ]}  # fmt: skip
    noted = {getattr(names, key): value for key, value in annotations.items()}
    noted |= {names.POD_VGPU_MODE: mode} if mode else {}
    value = {
        "metadata": {"name": "p", "uid": "uid-p", "annotations": noted},
        "spec": {**plain, **dict(spec)},
        "status": {"phase": "Pending", "conditions": told},
    }
    return msgspec.convert(value, Waiting)
