"""How long our filter and prioritize take, without HTTP: cold shape, warm shape, after one bind.

Run: uv run --frozen python bench/verbs.py [nodes ...]
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from hami_extender.selection import Policies, Selector
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hami_extender.wire import decode_filter
from hamikit import names
from hamikit.codec import GrantedDevice, RegisteredDevice, encode_register
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.objects import Node, Pod

CARDS = 8
ROUNDS = 50


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


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds and result of an action."""
    start = time.perf_counter()
    result = action()
    return (time.perf_counter() - start) * 1000, result


def measure(count: int) -> None:
    """Print one row for a cluster of this size."""
    snapshot = Snapshot(NVIDIA)
    every = [f"node-{i:05d}" for i in range(count)]
    load, _ = timed(lambda: [snapshot.on_node(Change(None, node(name))) for name in every])
    selector = Selector(snapshot, Policies(), missing=lambda: "")

    def ask(number: int, memory_mib: int = 3000) -> tuple[float, list[str]]:
        body = msgspec.json.encode({"Pod": pod(number, memory_mib), "NodeNames": every})
        ms, result = timed(lambda: selector.filter(decode_filter(body)))
        timed(result.encode)
        return ms, result.node_names

    cold, best = ask(0)
    warm, rank = [], []
    for number in range(1, ROUNDS):
        taken = GrantedDevice(f"GPU-{best[0]}-{number % CARDS}", "NVIDIA", 3000, 10)
        holder = msgspec.convert(pod(-number), Pod)
        with snapshot.lock:
            snapshot.hold(Kind.GRANT, holder, best[0], ((taken,),))
        ms, best = ask(number)
        warm.append(ms)
        body = msgspec.json.encode({"Pod": pod(number), "NodeNames": best})
        rank.append(timed(lambda body=body: selector.prioritize(decode_filter(body)))[0])
    full, _ = ask(10**6, 90000)
    print(
        f"{count:6d} nodes: load {load:7.0f} ms | "
        f"filter cold {cold:7.1f}, nothing fits {full:7.1f}, "
        f"warm p50 {statistics.median(warm):6.2f} max {max(warm):6.2f} | "
        f"prioritize p50 {statistics.median(rank):5.2f} ms"
    )


if __name__ == "__main__":
    for size in [int(text) for text in sys.argv[1:]] or [10, 100, 1000, 5000]:
        measure(size)
