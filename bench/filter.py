"""Server time of /filter in a quiet process: warm and cold shapes, with room and without.

Every node has eight cards and 40 pods; each request names all nodes, in another order each time, as
kube-scheduler does. What is timed is the WSGI application: body in, body out.
Run: uv run --frozen python bench/filter.py [nodes ...]
"""

import gc
import io
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cluster import CARDS, node, pod
from msgspec import convert

from hami_extender.app import create_app
from hami_extender.placement import Placement, place
from hami_extender.preempt import Preemptor
from hami_extender.selection import Policies, Selector
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hamikit import names as wire
from hamikit.codec import GrantedDevice, encode_grant
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.objects import Pod

PODS_A_NODE = 40
ROUNDS = 60
GOALS = {1000: (1.0, 10.0), 5000: (1.5, 40.0)}
"""Nodes -> milliseconds of a warm and of a cold shape, median."""

Json = dict[str, Any]


class NoBinds:
    """Nothing is bound through this application."""

    def bind(self, _args: object) -> str:
        """Never called."""
        return "not here"


def filled(count: int, rng: random.Random) -> Snapshot:
    """A cluster in which every card has five pods of different sizes."""
    snapshot = Snapshot(NVIDIA)
    number = 0
    for index in range(count):
        name = f"node-{index:05d}"
        snapshot.on_node(Change(None, node(name)))
        for place_ in range(PODS_A_NODE):
            uuid = f"GPU-{name}-{place_ % CARDS}"
            slice_ = GrantedDevice(
                uuid, "NVIDIA", rng.randrange(1000, 15000, 250), rng.choice([0, 5, 10, 15])
            )
            value = pod(1_000_000 + number)
            value["spec"]["nodeName"] = name  # type: ignore[index]
            value["metadata"]["annotations"] = {  # type: ignore[index]
                wire.POD_DEVICES_ALLOCATED: encode_grant(((slice_,),))
            }
            snapshot.on_pod(Change(None, convert(value, Pod)))
            number += 1
    return snapshot


def shaped(number: int, kind: str, salt: int) -> Json:
    """A pod of a kind; each `salt` is a shape of its own."""
    limits: dict[str, Json] = {
        "slice": {NVIDIA.count: "1", NVIDIA.memory: str(3000 + salt), NVIDIA.cores: "10"},
        "percent": {
            NVIDIA.count: "2",
            NVIDIA.memory_percentage: "20",
            NVIDIA.cores: str(salt % 30),
        },
        "topology": {NVIDIA.count: "4", NVIDIA.memory: str(3000 + salt)},
        "full": {NVIDIA.count: "1", NVIDIA.memory: str(80000 + salt)},
        "two": {NVIDIA.count: "1", NVIDIA.memory: str(3000 + salt)},
        "two-full": {NVIDIA.count: "8", NVIDIA.memory: str(30000 + salt)},
    }
    value: Json = pod(number)
    containers = [{"name": "c", "resources": {"limits": limits[kind]}}]
    if kind.startswith("two"):
        containers.append({"name": "d", "resources": {"limits": {**limits[kind]}}})
    value["spec"] = {"containers": containers}
    if kind == "topology":
        value["metadata"]["annotations"] = {wire.POD_GPU_POLICY: "topology-aware"}
    return value


def caller(app: Any) -> Callable[[bytes], tuple[float, Json]]:
    """Calls /filter; returns milliseconds and the answer."""

    def call(body: bytes) -> tuple[float, Json]:
        environ = {
            "REQUEST_METHOD": "POST", "PATH_INFO": "/filter", "QUERY_STRING": "",
            "SERVER_NAME": "x", "SERVER_PORT": "1", "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr, "wsgi.url_scheme": "http",
        }  # fmt: skip
        start = time.perf_counter()
        answer = b"".join(app(environ, lambda *_: None))
        return (time.perf_counter() - start) * 1000, json.loads(answer)

    return call


def measure(count: int) -> Iterator[tuple[str, str, list[float]]]:
    """Kind, temperature and milliseconds of each request."""
    rng = random.Random(count)
    snapshot = filled(count, rng)
    app = create_app(
        Selector(snapshot, Policies(), missing=lambda: ""),
        NoBinds(),
        Preemptor(snapshot, "spread", missing=lambda: ""),
    )
    call = caller(app)
    names = list(snapshot.ledger.nodes)
    number = 0

    def ask(kind: str, salt: int) -> float:
        nonlocal number
        number += 1
        rng.shuffle(names)
        value = shaped(number, kind, salt)
        milliseconds, answer = call(json.dumps({"Pod": value, "NodeNames": names}).encode())
        if answer["Error"] or bool(answer["NodeNames"]) is kind.endswith("full"):
            raise SystemExit(f"{kind}: unexpected answer {str(answer)[:200]}")
        # Somebody else's pod is bound meanwhile: the next question meets a changed node.
        other = convert(pod(10_000_000 + number), Pod)
        chosen = rng.choice(names)
        question = snapshot.question(other, "spread")
        verdict = place(snapshot.ledger.nodes[chosen], question) if question else None
        if isinstance(verdict, Placement):
            snapshot.hold(Kind.GRANT, other, chosen, verdict.slots)
        return milliseconds

    ask("slice", 0)
    gc.collect()
    gc.freeze()
    for kind in ("slice", "percent", "two", "topology", "full", "two-full"):
        yield kind, "cold", [ask(kind, 1 + salt) for salt in range(29)]
        ask(kind, 0)
        yield kind, "warm", [ask(kind, 0) for _ in range(ROUNDS)]


def goals(counts: Sequence[int]) -> list[Json]:
    """Measure clusters of these sizes; prints a table."""
    found_goals: list[Json] = []
    for count in counts:
        print(f"{count} nodes x {CARDS} cards, {PODS_A_NODE} pods a node")
        for kind, temperature, found in measure(count):
            middle = statistics.median(found)
            print(f"  {kind:9s} {temperature}: p50 {middle:8.2f} ms, worst {max(found):8.2f} ms")
            bounds = GOALS.get(count) if kind == "slice" else None
            goal = bounds[temperature == "cold"] if bounds else None
            found_goals.append(
                {
                    "name": f"/filter p50, {kind}, {temperature}, {count} nodes",
                    "value": round(middle, 3),
                    "unit": "ms",
                    "goal": goal,
                    "met": None if goal is None else middle <= goal,
                }
            )
    return found_goals


def main() -> None:
    """Print a table, then one JSON object."""
    counts = [int(text) for text in sys.argv[1:]] or [1000, 5000]
    print(json.dumps({"bench": "extender filter", "goals": goals(counts)}))


if __name__ == "__main__":
    main()
