"""Forty pods on one node of four cards, beside the same pods on a trivial plugin's devices.

With cgroup v1 runc sometimes cannot freeze a new sandbox ("unable to freeze"), and kubelet tries
again ten seconds later. That is before a device plugin has any part in the pod, and one of forty
decides how long all take, so these pods are counted apart, on both sides.
"""

import statistics
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from report import Report

from e2e.kube import Kube, not_running, wait_until
from e2e.pods import container, pod, slice_of
from e2e.product import connect
from e2e.trivial import trivial

PODS = 40
NODE = "hami-worker"
ON_NODE = {"kubernetes.io/hostname": NODE}
PLAIN = "bench.hami.io/plain"
GOAL = 1.15
IDLE = "exec sleep 3600"
FREEZE = "unable to freeze"


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds from creation until all pods run whose sandbox started at once, and until all do."""

    seconds: float
    whole: float
    failed: int

    def __str__(self) -> str:
        apart = f" ({self.whole:.1f} s with {self.failed} tried again)" if self.failed else ""
        return f"{self.seconds:.1f} s{apart}"


def measure(report: Report, pairs: int) -> None:
    """Interleaved pairs; the order changes with each."""
    kube = connect()
    ours: list[Run] = []
    theirs: list[Run] = []
    with namespaced(kube) as namespace, trivial(kube, namespace, NODE, PLAIN):
        for number in range(pairs):
            kinds = [(ours, slice_of(memory=1000, cores=2)), (theirs, {PLAIN: "1"})]
            for found, limits in kinds if number % 2 else reversed(kinds):
                found.append(create(kube, namespace, limits))
            print(f"pair {number + 1}: ours {ours[-1]}, trivial {theirs[-1]}")
    shares = [mine.seconds / plain.seconds for mine, plain in zip(ours, theirs, strict=True)]
    middle = [statistics.median(run.seconds for run in runs) for runs in (ours, theirs)]
    print(f"medians: ours {middle[0]:.1f}, trivial {middle[1]:.1f} s")
    name = f"{PODS} pods created to running, share of the trivial plugin's"
    report.add(name, statistics.median(shares), "", GOAL)


def create(kube: Kube, namespace: str, limits: dict[str, str]) -> Run:
    """All pods are created at once, and gone again when this returns."""
    asked = container("c", limits, IDLE)
    prefix = uuid.uuid4().hex[:4]  # events outlive the pods they are about
    names = [f"{prefix}-{number}" for number in range(PODS)]
    running: dict[str, float] = {}
    begin = time.monotonic()

    def missing() -> str | None:
        pods = kube.pods(namespace)
        for found in pods:
            if found["status"].get("phase") == "Running":
                running.setdefault(found["metadata"]["name"], time.monotonic() - begin)
        return not_running(pods, names)

    kube.create(*(pod(name, namespace, asked, nodeSelector=ON_NODE) for name in names))
    wait_until(missing, 400)
    events = kube.get("events", "-n", namespace, "--field-selector=reason=FailedCreatePodSandBox")
    failed = {e["involvedObject"]["name"] for e in events["items"] if FREEZE in e["message"]}
    kube.kubectl("delete", "pod", "-n", namespace, *names, "--now", "--timeout=200s")
    return Run(
        seconds=max(running[name] for name in names if name not in failed),
        whole=max(running[name] for name in names),
        failed=len(failed & set(names)),
    )


@contextmanager
def namespaced(kube: Kube) -> Iterator[str]:
    """A namespace of our own."""
    name = f"bench-node-{uuid.uuid4().hex[:6]}"
    kube.kubectl("create", "namespace", name)
    account = ("get", "serviceaccount", "-n", name, "default", "-o", "name")
    wait_until(lambda: None if kube.kubectl(*account, check=False) else "its account", 30)
    yield name
    kube.kubectl("delete", "namespace", name, "--wait=false")
