"""Forty pods on one node of four cards, beside the same pods on a trivial plugin's devices."""

import statistics
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

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


def measure(report: Report, pairs: int) -> None:
    """Interleaved pairs; the order changes with each."""
    kube = connect()
    ours, theirs = [], []
    with namespaced(kube) as namespace, trivial(kube, namespace, NODE, PLAIN):
        for number in range(pairs):
            kinds = [(ours, slice_of(memory=1000, cores=2)), (theirs, {PLAIN: "1"})]
            for found, limits in kinds if number % 2 else reversed(kinds):
                found.append(create(kube, namespace, limits))
            print(f"pair {number + 1}: ours {ours[-1]:.1f} s, trivial {theirs[-1]:.1f} s")
    shares = [mine / plain for mine, plain in zip(ours, theirs, strict=True)]
    print(f"medians: ours {statistics.median(ours):.1f}, trivial {statistics.median(theirs):.1f} s")
    name = f"{PODS} pods created to running, share of the trivial plugin's"
    report.add(name, statistics.median(shares), "", GOAL)


def create(kube: Kube, namespace: str, limits: dict[str, str]) -> float:
    """Seconds from the creation of all pods until all run; they are gone afterwards."""
    asked = container("c", limits, IDLE)
    names = [f"p{number}" for number in range(PODS)]
    begin = time.monotonic()
    kube.create(*(pod(name, namespace, asked, nodeSelector=ON_NODE) for name in names))
    wait_until(lambda: not_running(kube.pods(namespace), names), 400)
    seconds = time.monotonic() - begin
    kube.kubectl("delete", "pod", "-n", namespace, *names, "--now", "--timeout=200s")
    return seconds


@contextmanager
def namespaced(kube: Kube) -> Iterator[str]:
    """A namespace of our own."""
    name = f"bench-node-{uuid.uuid4().hex[:6]}"
    kube.kubectl("create", "namespace", name)
    account = ("get", "serviceaccount", "-n", name, "default", "-o", "name")
    wait_until(lambda: None if kube.kubectl(*account, check=False) else "its account", 30)
    yield name
    kube.kubectl("delete", "namespace", name, "--wait=false")
