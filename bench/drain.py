"""2,000 waiting pods of ten Jobs through the real kube-scheduler, beside the null extender.

Runs of both take turns on one control plane. Run, with PYTHONPATH=. and for instance
    python bench/drain.py --pairs 5 --pods 2000 --nodes 1000 5000
"""

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane import ALL_NODES, ControlPlane, control_plane
from herd import (
    NULL,
    OURS,
    PODS,
    Bindings,
    Json,
    create,
    delete_all,
    extender,
    figure,
    goal,
    node_names,
    node_object,
    pod_object,
)

from hamikit.devices import NVIDIA

DEFAULT_SAMPLING = 0
SAMPLINGS = {ALL_NODES: "all nodes", DEFAULT_SAMPLING: "default sampling"}
GOAL_MEDIAN, GOAL_QUARTILE, GOAL_CONFLICTS_PERCENT = 0.9, 0.85, 1.0
GOAL_WRITES = 2.0
"""The Binding and kube-scheduler's own event."""
PATIENCE_S = 300.0
JOBS = (
    (1, NVIDIA.memory, 2000, 5), (1, NVIDIA.memory, 4000, 10), (1, NVIDIA.memory, 8000, 20),
    (1, NVIDIA.memory, 16000, 0), (1, NVIDIA.memory, 3000, 30), (2, NVIDIA.memory, 4000, 10),
    (1, NVIDIA.memory_percentage, 10, 10), (1, NVIDIA.memory, 20000, 50),
    (4, NVIDIA.memory, 8000, 10), (1, NVIDIA.memory, 40000, 0),
)  # fmt: skip
"""Cards, of which resource how much, percent of cores."""


@dataclass(frozen=True, slots=True)
class Run:
    """One drain: pods a second, percent of binds with trouble, writes and CPU a pod.

    `cpu_ms` is the extender's, `all_cpu_ms` that of etcd, API server and kube-scheduler too.
    """

    rate: float
    troubles: float
    writes: float
    cpu_ms: float
    all_cpu_ms: float
    kinds: str


def job_pods(count: int) -> list[Json]:
    """The Jobs' pods, in turns."""
    pods = []
    for number in range(count):
        cards, resource, amount, cores = JOBS[number % len(JOBS)]
        limits = {NVIDIA.count: str(cards), resource: str(amount), NVIDIA.cores: str(cores)}
        pods.append(pod_object(f"job-{number:05d}", limits))
    return pods


def drain(plane: ControlPlane, kind: str, percentage: int, count: int) -> Run:
    """Let one extender place all pods; they are gone afterwards."""
    create(plane.api, PODS, job_pods(count))
    bound = Bindings(plane.api)
    with extender(plane, kind) as running:
        before, cpu, others = Counter(plane.writes()), running.cpu_s(), plane.cpu_s()
        with plane.scheduler(running.port, percentage=percentage):
            if not bound.wait(count, PATIENCE_S):
                raise SystemExit(f"{kind}: {bound.count()} of {count} pods bound, then none")
            cpu, others = running.cpu_s() - cpu, plane.cpu_s() - others
        written = Counter(plane.writes()) - before
        said = running.metrics() if kind == OURS else ""
    times = sorted(bound.times())
    bound.close()
    delete_all(plane.api, PODS)
    delete_all(plane.api, "/apis/events.k8s.io/v1/namespaces/default/events")
    return Run(
        rate=(count - 1) / (times[-1] - times[0]),
        troubles=100 * figure(said, "hami_extender_bind_trouble_total") / count,
        writes=sum(written.values()) / count,
        cpu_ms=1000 * cpu / count,
        all_cpu_ms=1000 * (cpu + others) / count,
        kinds=", ".join(f"{what} {number}" for what, number in written.most_common(4)),
    )


def measure(plane: ControlPlane, percentage: int, count: int, pairs: int) -> list[tuple[Run, Run]]:
    """Pairs of runs, null's and ours, each first in turn."""
    found = []
    for number in range(pairs):
        order = (NULL, OURS) if number % 2 == 0 else (OURS, NULL)
        runs = {kind: drain(plane, kind, percentage, count) for kind in order}
        null, ours = runs[NULL], runs[OURS]
        print(
            f"  pair {number + 1}: null {null.rate:6.1f}, ours {ours.rate:6.1f} pods/s, "
            f"{ours.rate / null.rate:.3f}; CPU of the extender {null.cpu_ms:.2f} and "
            f"{ours.cpu_ms:.2f} ms a pod, of all programs {null.all_cpu_ms:.1f} and "
            f"{ours.all_cpu_ms:.1f}; ours wrote {ours.kinds}",
            flush=True,
        )
        found.append((null, ours))
    return found


def lower_quartile(values: Sequence[float]) -> float:
    """A quarter of the values is at most this."""
    return (
        statistics.quantiles(values, n=4, method="inclusive")[0] if len(values) > 1 else values[0]
    )


def judged(found: Sequence[tuple[Run, Run]], where: str) -> list[Json]:
    """The goals of one row."""
    ratios = [ours.rate / null.rate for null, ours in found]
    runs = [run for _, run in found]
    rate = statistics.median(run.rate for run in runs)
    troubles = statistics.median(run.troubles for run in runs)
    print(
        f"  median {rate:.1f} pods/s of ours, {statistics.median(n.rate for n, _ in found):.1f} of "
        f"null; ratio {statistics.median(ratios):.3f}, lower quartile {lower_quartile(ratios):.3f}"
    )
    return [
        goal(f"drain over null, median, {where}", statistics.median(ratios), "ratio",
             GOAL_MEDIAN, least=True),
        goal(f"drain over null, lower quartile, {where}", lower_quartile(ratios), "ratio",
             GOAL_QUARTILE, least=True),
        goal(f"drain, {where}", rate, "pods/s", None),
        goal(f"CPU of the extender beyond null's, {where}",
             statistics.median(ours.cpu_ms - null.cpu_ms for null, ours in found),
             "ms a pod", None),
        # Where the machine is busy all the time this is what the rates come to, without its noise.
        goal(f"CPU of all programs, null's over ours, {where}",
             statistics.median(null.all_cpu_ms / ours.all_cpu_ms for null, ours in found),
             "ratio", None),
        goal(f"bind conflicts, and binds refused or unanswered, {where}", troubles, "%",
             GOAL_CONFLICTS_PERCENT),
        goal(f"API writes a pod, {where}", statistics.median(r.writes for r in runs), "writes",
             GOAL_WRITES),
    ]  # fmt: skip


def goals(sizes: Sequence[int], count: int, pairs: int) -> list[Json]:
    """Measure clusters of these sizes; prints a table."""
    judgements: list[Json] = []
    with control_plane() as plane:
        there = 0
        for size in sorted(sizes):
            create(plane.api, "/api/v1/nodes", map(node_object, node_names(size)[there:]))
            there = size
            for percentage, sampling in SAMPLINGS.items():
                where = f"{size} nodes, {sampling}"
                print(f"drain of {count} pods, {where}, {pairs} pairs", flush=True)
                judgements += judged(measure(plane, percentage, count, pairs), where)
    return judgements


def main() -> None:
    """Print a table, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1000, 5000])
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    found = goals(options.nodes, options.pods, options.pairs)
    print(json.dumps({"bench": "extender drain", "goals": found}))


if __name__ == "__main__":
    main()
