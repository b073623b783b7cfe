"""What the four steps of a pod cost the extender in a process alone, its caches warm and empty.

kube-scheduler asks about a sample of the nodes, another one each time. In a drain four other
programs use the same processors: with empty caches comes nearer to that. CPU time of the thread.
Run, with PYTHONPATH=. and for instance
    python bench/steps.py --nodes 5000 --sample 500 --pods 400
"""

import argparse
import gc
import io
import json
import statistics
import sys
import time
from collections import defaultdict
from typing import Any

import drain
from herd import goal, node_names, node_object
from prometheus_client import CollectorRegistry

from hami_extender.config import Config
from hami_extender.snapshot import Snapshot
from hami_extender.wiring import Parts
from hamikit import logs
from hamikit.devices import NVIDIA

Json = dict[str, Any]
STEPS = ("filter", "prioritize", "bind", "event")
WARM, EMPTY = "warm", "empty"
CACHES_BYTES = 48 * 2**20
"""More than the processor's caches hold."""
FIRST = 20
"""Pods of shapes that nobody asked for before."""


class Api:
    """Takes every Binding."""

    def __init__(self) -> None:
        self.body: Json = {}

    def request(self, _method: str, _path: str, *, body: Any = None, **_: Any) -> bytes:
        """Remember what is written."""
        self.body = body
        return b"{}"


class Alone:
    """An extender without network, with nodes and waiting pods."""

    def __init__(self, nodes: int, pods: int) -> None:
        self.api, self.names = Api(), node_names(nodes)
        snapshot = Snapshot(NVIDIA)
        registry = CollectorRegistry()
        self._parts = Parts(Config.parse([], {}), snapshot, self.api, registry)  # type: ignore[arg-type]
        self.pods = drain.job_pods(pods)
        for number, value in enumerate(map(node_object, self.names)):
            value["metadata"] |= {"uid": f"node-{number}", "resourceVersion": str(1 + number)}
            self._parts.nodes._event(_line("ADDED", value))  # noqa: SLF001
        for number, value in enumerate(self.pods):
            version = str(100_000 + number)
            value["metadata"] |= {
                "namespace": "default", "uid": f"pod-{number}", "resourceVersion": version,
            }  # fmt: skip
            self.show("ADDED", value)
        for informer in self._parts.informers.values():
            informer.synced.set()
        self._app = self._parts.verbs()
        gc.collect()
        gc.freeze()

    def ask(self, verb: str, **question: Any) -> tuple[float, Any]:
        """Microseconds and the answer."""
        body = json.dumps(question).encode()
        environ = {
            "REQUEST_METHOD": "POST", "PATH_INFO": f"/{verb}", "QUERY_STRING": "",
            "SERVER_NAME": "x", "SERVER_PORT": "1", "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr, "wsgi.url_scheme": "http",
        }  # fmt: skip
        before = time.thread_time_ns()
        answer = b"".join(self._app(environ, lambda *_: None))
        return (time.thread_time_ns() - before) / 1000, json.loads(answer)

    def show(self, kind: str, value: Json) -> float:
        """Microseconds that an event of a pod takes."""
        line = _line(kind, value)
        before = time.thread_time_ns()
        self._parts.pods._event(line)  # noqa: SLF001
        return (time.thread_time_ns() - before) / 1000


def _line(kind: str, value: Json) -> bytes:
    return json.dumps({"type": kind, "object": value}).encode()


def place(alone: Alone, number: int, asked: list[str], *, empty: bool) -> dict[str, float]:
    """Microseconds of each step of one pod."""
    pod = alone.pods[number]
    meta, took = pod["metadata"], {}
    ballast = bytearray(CACHES_BYTES if empty else 0)

    bytes(ballast)
    took["filter"], found = alone.ask("filter", Pod=pod, NodeNames=asked)
    if not found["NodeNames"]:
        raise SystemExit(f"{meta['name']} fits nowhere: {str(found)[:200]}")
    bytes(ballast)
    took["prioritize"], scores = alone.ask("prioritize", Pod=pod, NodeNames=found["NodeNames"])
    node = max(scores, key=lambda entry: entry["Score"])["Host"]
    who = {"PodName": meta["name"], "PodNamespace": "default", "PodUID": meta["uid"]}
    bytes(ballast)
    took["bind"], said = alone.ask("bind", **who, Node=node)
    if said["Error"]:
        raise SystemExit(f"{meta['name']} is not bound: {said['Error']}")
    pod["spec"]["nodeName"] = node
    meta["annotations"] |= alone.api.body["metadata"]["annotations"]
    meta["resourceVersion"] = str(1_000_000 + number)
    bytes(ballast)
    took["event"] = alone.show("MODIFIED", pod)
    return took


def goals(nodes: int, sample: int, pods: int) -> list[Json]:
    """Measure; prints a table."""
    alone = Alone(nodes, pods)
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(pods):
        start = number * sample
        asked = [alone.names[(start + place_) % nodes] for place_ in range(sample)]
        # In turns of ten: as many of each Job.
        caches = EMPTY if number // len(drain.JOBS) % 2 else WARM
        for step, microseconds in place(alone, number, asked, empty=caches == EMPTY).items():
            if number >= FIRST:
                taken[caches, step].append(microseconds)
    found = []
    for caches in (WARM, EMPTY):
        middle = {step: statistics.median(taken[caches, step]) for step in STEPS}
        said = ", ".join(f"{step} {value:.0f}" for step, value in middle.items())
        where = f"{sample} of {nodes} nodes asked about, caches {caches}"
        print(f"{where}: {said}; together {sum(middle.values()):.0f} us a pod")
        found.append(goal(f"CPU of a pod's steps, {where}", sum(middle.values()), "us", None))
    return found


def main() -> None:
    """Print a table, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--sample", type=int, default=500)
    parser.add_argument("--pods", type=int, default=400)
    options = parser.parse_args()
    logs.configure("error")
    found = goals(options.nodes, options.sample, options.pods)
    print(json.dumps({"bench": "extender steps", "goals": found}))


if __name__ == "__main__":
    main()
