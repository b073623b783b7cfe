"""Pods on MIG instances, and what programs in their containers see."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from plugin_kit import make_pod

from hamikit import names


def reservation(uuid, place, profile, **made):
    """The annotation of one instance for the pod's only container."""
    entry = {"containerIndex": 0, "deviceIndex": 0, "gpuUUID": uuid, "profile": profile}
    placement = {"start": place[0], "size": place[1]}
    return json.dumps([{**entry, "placement": placement, **made}])


def pod_on(uid, uuid, start, size=1, profile="1g.5gb", **made):
    """A pod with a reservation, or with its record."""
    pod = make_pod(uid, f"{uuid},NVIDIA,4864,15:;")
    pod.metadata.annotations[names.POD_MIG_ALLOCATIONS] = reservation(
        uuid, (start, size), profile, **made
    )
    return pod


def environment(node, fakegpu, spec):
    """The environment of a program in a container that has the device nodes of this spec."""
    dev = Path(tempfile.mkdtemp(dir=node.root))
    for path in (device["path"] for device in spec["deviceNodes"]):
        file = dev / path.removeprefix("/dev/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    state = node.root / "driver/run/nvidia-fake/state"
    simulated = {"FAKEGPU_STATE": str(state), "FAKEGPU_DEV": str(dev)}
    return {**os.environ, **simulated, "LD_LIBRARY_PATH": str(fakegpu.parent)}


def inside(node, fakegpu, spec, *command):
    """What such a program prints."""
    program = [fakegpu.parent / command[0], *command[1:]]
    env = environment(node, fakegpu, spec)
    return subprocess.run(program, env=env, check=True, capture_output=True, text=True).stdout
