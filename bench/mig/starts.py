"""How long from a pod's binding to its container's first instruction, with MIG and without.

The simulated driver makes an instance at once (no `mig_ms`), so nothing is taken off for that. Pods
that runc could not start a sandbox for (see bench/node/pods.py) are counted apart, on both sides.
"""

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pods import FREEZE, namespaced
from report import Report

from e2e.kube import Kube, wait_until
from e2e.mig import OTHER, WORKER, cards, divided, instances
from e2e.pods import container, pod, slice_of
from e2e.product import connect

GOAL_S = 1.5
MEMORY_MIB, PROFILES = 4000, 7
"""The smallest profile, and how many of it a card has."""
SHOW = "date +%s.%N; exec sleep 3600"
BOUND = '{.metadata.name} {.spec.nodeName}{"\\n"}'


def measure(report: Report, rounds: int) -> None:
    """One pod after the other, in turns; a round fills the divided cards, so each makes its own."""
    kube = connect()
    with (
        TemporaryDirectory() as folder,
        namespaced(kube) as namespace,
        divided(kube, Path(folder)),
        bindings(kube, namespace) as bound,
    ):
        with_mig: dict[str, float] = {}
        without: dict[str, float] = {}
        for number in range(rounds):
            names = []
            for index in range(len(cards()) * PROFILES):
                name, plain = f"m{number}-{index}", f"s{number}-{index}"
                names.append(name)
                with_mig[name] = start(kube, namespace, name, WORKER, bound)
                without[plain] = start(kube, namespace, plain, OTHER, bound)
                delete(kube, namespace, plain)
            made = len(instances())
            if made != len(names):
                raise AssertionError(f"{len(names)} pods have {made} instances")
            delete(kube, namespace, *names)
            wait_until(lambda: f"the end of {instances()}" if instances() else None, 120)
        failed = frozen(kube, namespace)
    kept = [[s for n, s in each.items() if n not in failed] for each in (with_mig, without)]
    tell(report, *kept)
    print(f"counted apart: {len(failed)} pods whose sandbox runc could not freeze")


def frozen(kube: Kube, namespace: str) -> set[str]:
    """Pods that waited for a second sandbox, which no device plugin has any part in."""
    events = kube.get("events", "-n", namespace, "--field-selector=reason=FailedCreatePodSandBox")
    return {e["involvedObject"]["name"] for e in events["items"] if FREEZE in e["message"]}


def tell(report: Report, with_mig: list[float], without: list[float]) -> None:
    """The table and the figure."""
    said = "{}: median {:.2f} s, p99 {:.2f} s of {}"
    for what, found in (("with MIG", with_mig), ("without", without)):
        print(said.format(what, statistics.median(found), p99(found), len(found)))
    added = p99(with_mig) - statistics.median(without)
    report.add(
        "bind to container start, p99 with MIG beyond the median without", added, "s", GOAL_S
    )


def p99(found: list[float]) -> float:
    """The greatest but one in a hundred."""
    return sorted(found)[max(0, len(found) - 1 - len(found) // 100)]


def start(kube: Kube, namespace: str, name: str, node: str, bound: dict[str, float]) -> float:
    """Seconds from when a pod was bound to when its container ran."""
    asked = container("c", slice_of(memory=MEMORY_MIB), SHOW)
    kube.create(pod(name, namespace, asked, nodeSelector={"kubernetes.io/hostname": node}))
    wait_until(lambda: None if name in bound else f"binding of {name}", 60)
    kube.wait_running(namespace, name)
    return float(kube.wait_log(namespace, name, "\n").split()[0]) - bound[name]


def delete(kube: Kube, namespace: str, *names: str) -> None:
    """And wait until they are gone."""
    kube.kubectl("delete", "pod", "-n", namespace, *names, "--now", "--timeout=120s")


@contextmanager
def bindings(kube: Kube, namespace: str) -> Iterator[dict[str, float]]:
    """When each pod's binding was first seen, in Unix seconds."""
    found: dict[str, float] = {}
    command = [kube.binary, "get", "pods", "-n", namespace, "-w", "-o", f"jsonpath={BOUND}"]
    environment = {**os.environ, **kube.environment}
    watch = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, bufsize=1)

    def read() -> None:
        for line in watch.stdout or ():
            name, _, node = line.strip().partition(" ")
            if node:
                found.setdefault(name, time.time())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield found
    finally:
        watch.terminate()
        watch.wait()
        reader.join()
