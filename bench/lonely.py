"""A full cluster of which one node has room: pods that come one after the other must all find it.

Run, with PYTHONPATH=. and for instance
    python bench/lonely.py --nodes 5000 --pods 50 --sampled 6
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence

from cluster import CARDS
from controlplane import ALL_NODES, ControlPlane, control_plane
from herd import (
    OURS,
    PODS,
    Bindings,
    Json,
    create,
    extender,
    figure,
    goal,
    metrics_of,
    node_names,
    node_object,
    pod_object,
)

from hamikit.codec import GrantedDevice, encode_grant
from hamikit.devices import NVIDIA

GOAL_SAMPLED_S = 60.0
PATIENCE_S = 400.0
"""More than the five minutes after which kube-scheduler looks at parked pods again."""
DEFAULTS = (50, 6)
"""Pods with all nodes looked at, and pods with the default sampling."""
ALL, SAMPLED = "all nodes", "default sampling"
PERCENTAGES = {ALL: ALL_NODES, SAMPLED: 0}


def filler(name: str) -> Json:
    """A pod that holds every card of a node."""
    cards = tuple(GrantedDevice(f"GPU-{name}-{i}", "NVIDIA", 81920, 100) for i in range(CARDS))
    limits = {NVIDIA.count: str(CARDS), NVIDIA.cores: "100"}
    return pod_object(f"full-{name}", limits, node_name=name, grant=encode_grant((cards,)))


def place(plane: ControlPlane, sampling: str, count: int) -> tuple[list[float], dict[str, float]]:
    """Seconds that each pod waited, and kube-scheduler's attempts by their result."""
    limits = {NVIDIA.count: "1", NVIDIA.memory: "1000", NVIDIA.cores: "1"}
    waits = []
    with (
        extender(plane, OURS) as running,
        plane.scheduler(running.port, percentage=PERCENTAGES[sampling]) as status,
    ):
        bound = Bindings(plane.api)
        try:
            for number in range(count):
                started = time.monotonic()
                name = f"last-{PERCENTAGES[sampling]}-{number:03d}"
                plane.api.create(PODS, pod_object(name, limits))
                if not bound.wait(number + 1, PATIENCE_S):
                    raise SystemExit(f"{name} found no node within {PATIENCE_S:.0f} s")
                waits.append(bound.times()[-1] - started)
        finally:
            bound.close()
        said = metrics_of(f"https://127.0.0.1:{status}/metrics")
    attempts = {
        result: figure(said, "scheduler_schedule_attempts_total", result=result)
        for result in ("scheduled", "unschedulable", "error")
    }
    return waits, attempts


def judged(sampling: str, waits: Sequence[float], attempts: dict[str, float]) -> list[Json]:
    """The goals of one row."""
    said = ", ".join(f"{result} {number:.0f}" for result, number in attempts.items())
    print(
        f"  {sampling}: {len(waits)} pods waited {statistics.median(waits):.3f} s in the middle, "
        f"{max(waits):.2f} s at most; attempts: {said}",
        flush=True,
    )
    parked = goal(f"one node has room, {sampling}: pods parked", attempts["unschedulable"],
                  "attempts", 0)  # fmt: skip
    if sampling == ALL:
        tries = attempts["scheduled"] + attempts["error"] + attempts["unschedulable"]
        return [
            goal("one node has room: attempts a pod", tries / len(waits), "attempts", 1),
            goal("one node has room: longest wait", max(waits), "s", None),
            parked,
        ]
    return [
        goal(f"one node has room, {sampling}: longest wait", max(waits), "s", GOAL_SAMPLED_S),
        parked,
    ]


def goals(size: int, count: int, sampled: int) -> list[Json]:
    """Measure; prints a table."""
    found: list[Json] = []
    with control_plane() as plane:
        names = node_names(size)
        create(plane.api, "/api/v1/nodes", map(node_object, names))
        create(plane.api, PODS, (filler(name) for name in names if name != names[size // 2]))
        print(f"{size} nodes of which one has room", flush=True)
        for sampling, pods in ((ALL, count), (SAMPLED, sampled)):
            found += judged(sampling, *place(plane, sampling, pods))
    return found


def main() -> None:
    """Print a table, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=DEFAULTS[0])
    parser.add_argument("--sampled", type=int, default=DEFAULTS[1])
    options = parser.parse_args()
    found = goals(options.nodes, options.pods, options.sampled)
    print(json.dumps({"bench": "extender with one node left", "goals": found}))


if __name__ == "__main__":
    main()
