"""How the extender's cost grows with nodes and pods: each row in a process of its own, no network.

Lists come from a simulated API server through the real informers; figures are CPU time of the
extender's own code, which other work on the machine changes least. Run, with PYTHONPATH=. and
    python bench/growth.py [nodes:pods ...]
"""

import contextlib
import gc
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import msgspec
from cluster import pod
from processes import memory_mib
from prometheus_client import CollectorRegistry
from restart import Cluster

from hami_extender.binding import Binder
from hami_extender.flights import Flights
from hami_extender.metrics import VerbMetrics
from hami_extender.nodelock import NodeLocks
from hami_extender.selection import Policies, Selector
from hami_extender.snapshot import Snapshot
from hami_extender.wire import decode_bind, decode_filter, encode_priorities
from hamikit.cluster import Unreachable
from hamikit.devices import NVIDIA
from hamikit.informer import Change, Informer
from hamikit.objects import Node, Pod

ROWS = ((100, 0), (100, 4000), (1000, 0), (1000, 40_000), (5000, 0), (5000, 100_000),
        (5000, 200_000), (10_000, 0), (10_000, 200_000))  # fmt: skip
COLD, WARM = 5, 40


class Pages:
    """A simulated API server: lists page by page, takes every write, and has no watch."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.spent_s = 0.0

    def request(self, _method: str, path: str, *, query: Any = None, **_: Any) -> bytes:
        """A page of a list, or yes to a write; its own time is not the extender's."""
        if path.endswith("/binding"):
            return b"{}"
        started = time.process_time()
        try:
            return self._cluster.page(path, int(query.get("continue", 0)), int(query["limit"]))
        finally:
            self.spent_s += time.process_time() - started

    def stream(self, path: str, *_: Any) -> Any:
        """The end of the first step."""
        raise Unreachable(path)


@dataclass(frozen=True)
class Row:
    """What a cluster of this size costs: seconds, MiB, and milliseconds of CPU."""

    nodes: int
    pods: int
    load_s: float
    rss_mib: float
    cold_ms: float
    warm_ms: float
    prioritize_ms: float
    bind_ms: float
    event_ms: float


class World:
    """An extender that has read the whole cluster."""

    def __init__(self, nodes: int, pods: int) -> None:
        self.names = [f"node-{number:05d}" for number in range(nodes)]
        self.snapshot, api = Snapshot(NVIDIA), Pages(Cluster(nodes, pods))
        self._informers: list[Informer[Any]] = []
        """Kept: what they remember is part of the extender's memory."""
        started = time.process_time()
        for path, kind, told, keep in (
            ("/api/v1/nodes", Node, self.snapshot.on_node, None),
            ("/api/v1/pods", Pod, self.snapshot.on_pod, self.snapshot.kept),
        ):
            informer: Informer[Any] = Informer(api, path, kind, told, keep=keep)  # type: ignore[arg-type]
            with contextlib.suppress(Unreachable):
                informer.step()
            self._informers.append(informer)
        self.load_s = time.process_time() - started - api.spent_s
        flights, tally = Flights(self.snapshot, api), VerbMetrics(CollectorRegistry(), "")  # type: ignore[arg-type]
        self.selector = Selector(self.snapshot, Policies(), missing=lambda: "")
        self.binder = Binder(
            self.snapshot, api, flights, missing=lambda: "", gpu_policy="spread", tally=tally,
            locks=NodeLocks(self.snapshot, api, flights, expire_s=300),  # type: ignore[arg-type]
        )  # fmt: skip

    def place(self, number: int, memory_mib: int) -> Iterator[tuple[str, float]]:
        """One pod's whole way; each step with its milliseconds."""
        asked = pod(number, memory_mib)
        waiting = _decoded(asked)
        self.snapshot.on_pod(Change(None, waiting))
        args = json.dumps({"Pod": asked, "NodeNames": self.names}).encode()
        best, spent = _timed(lambda: self.selector.filter(decode_filter(args)).encode())
        yield "filter", spent
        few = json.loads(best)["NodeNames"]
        args = json.dumps({"Pod": asked, "NodeNames": few}).encode()
        said, spent = _timed(
            lambda: encode_priorities(self.selector.prioritize(decode_filter(args)))
        )
        yield "prioritize", spent
        first = max(json.loads(said), key=lambda one: one["Score"])["Host"]
        meta = waiting.metadata
        wish = {"PodName": meta.name, "PodNamespace": "default", "PodUID": meta.uid, "Node": first}
        body = json.dumps(wish).encode()
        error, spent = _timed(lambda: self.binder.bind(decode_bind(body)))
        if error:
            raise SystemExit(f"bind of {meta.name}: {error}")
        yield "bind", spent
        asked["spec"]["nodeName"] = first  # type: ignore[index]
        yield "event", _timed(lambda: self.snapshot.on_pod(Change(None, _decoded(asked))))[1]


def _decoded(value: Any) -> Pod:
    return msgspec.convert(value, Pod)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    result = work()
    return result, 1000 * (time.process_time() - started)


def measure(nodes: int, pods: int, answer: Connection) -> None:
    """One row; run it in a process of its own."""
    # As the program itself does until its first lists are complete.
    gc.disable()
    world = World(nodes, pods)
    gc.collect()
    gc.freeze()
    gc.enable()
    cold = [dict(world.place(10**6 + n, 1000 + n))["filter"] for n in range(COLD)]
    warm = [dict(world.place(2 * 10**6 + n, 1000)) for n in range(WARM)]
    middle = {step: statistics.median(one[step] for one in warm) for step in warm[0]}
    answer.send(
        Row(
            nodes, pods, world.load_s, memory_mib(os.getpid()), statistics.median(cold),
            middle["filter"], middle["prioritize"], middle["bind"], middle["event"],
        )
    )  # fmt: skip


def row(nodes: int, pods: int) -> Row:
    """Measure a cluster of this size."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=measure, args=(nodes, pods, theirs)
    )
    process.start()
    found: Row = ours.recv()
    process.join()
    return found


def main() -> None:
    """Print a table, then one JSON object."""
    sizes = [tuple(map(int, text.split(":"))) for text in sys.argv[1:]] or ROWS
    print("nodes   pods    reading  resident  filter cold  warm  prioritize  bind  event of a pod")
    goals = []
    for nodes, pods in sizes:
        one = row(nodes, pods)
        print(
            f"{nodes:6d} {pods:7d} {one.load_s:6.1f} s {one.rss_mib:5.0f} MiB {one.cold_ms:8.1f} "
            f"{one.warm_ms:8.2f} {one.prioritize_ms:8.2f} {one.bind_ms:8.2f} "
            f"{one.event_ms:8.2f} ms",
            flush=True,
        )
        goals += [
            {"name": f"{name}, {nodes} nodes, {pods} pods", "value": round(value, 3),
             "unit": name.rpartition("_")[2], "goal": None, "met": None}
            for name, value in asdict(one).items() if name not in ("nodes", "pods")
        ]  # fmt: skip
    print(json.dumps({"bench": "extender growth", "goals": goals}))


if __name__ == "__main__":
    main()
