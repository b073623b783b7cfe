"""Our extender beside the null one over HTTP: filter, prioritize, bind, one pod after another.

Both run on falcon and waitress in a process of their own and write to an API server that says yes
at once, so what differs is our deciding. Run: uv run --frozen python bench/compare.py [nodes ...]
"""

import http.client
import json
import multiprocessing
import socket
import statistics
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import falcon
import waitress
from cluster import node, pod
from msgspec import convert
from null_extender import Bind, Filter, Prioritize
from prometheus_client import CollectorRegistry

from hami_extender.app import create_app
from hami_extender.binding import Binder
from hami_extender.flights import Flights
from hami_extender.metrics import VerbMetrics
from hami_extender.nodelock import NodeLocks
from hami_extender.preempt import Preemptor
from hami_extender.selection import Policies, Selector
from hami_extender.snapshot import Snapshot
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.objects import Pod

PODS = 400
SHORTLIST = 64


class Yes:
    """An API server that takes every write and shows every pod."""

    def create(self, _path: str, _body: Any, _query: Any) -> bytes:
        """The null extender's write."""
        return b"{}"

    def request(self, *_: Any, **__: Any) -> bytes:
        """Our write."""
        return b"{}"

    def patch(self, _path: str, _body: Any) -> bytes:
        """A lock; there is none on late-binding nodes."""
        return b"{}"

    def get(self, path: str, _kind: Any) -> Any:
        """The pod that is asked about."""
        return convert(pod(int(path.rsplit("/p", 1)[1])), Pod)


def null_app(_count: int) -> Any:
    """The protocol and nothing else."""
    app: falcon.App[falcon.Request, falcon.Response] = falcon.App()
    app.add_route("/filter", Filter(SHORTLIST))
    app.add_route("/prioritize", Prioritize())
    app.add_route("/bind", Bind(Yes()))  # type: ignore[arg-type]
    return app


def our_app(count: int) -> Any:
    """The extender on a cluster of this size."""
    snapshot = Snapshot(NVIDIA)
    for number in range(count):
        snapshot.on_node(Change(None, node(f"node-{number:05d}")))
    api = Yes()
    metrics, flights = VerbMetrics(CollectorRegistry(), "bench"), Flights(snapshot, api)
    binder = Binder(
        snapshot,
        api,
        flights,
        missing=lambda: "",
        gpu_policy="spread",
        tally=metrics,
        locks=NodeLocks(snapshot, api, flights, expire_s=300),
    )
    selector = Selector(snapshot, Policies(shortlist=SHORTLIST), missing=lambda: "")
    preemptor = Preemptor(snapshot, "spread", missing=lambda: "")
    return create_app(selector, binder, preemptor, observe=metrics.observe)


def serve(kind: str, count: int, ready: Connection) -> None:
    """Serve until killed; says its port."""
    app = {"null": null_app, "ours": our_app}[kind](count)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = waitress.create_server(app, sockets=[listener], threads=64)
        ready.send(listener.getsockname()[1])
        server.run()


def ask(client: http.client.HTTPConnection, verb: str, body: Any) -> Any:
    """One question."""
    client.request("POST", f"/{verb}", json.dumps(body))
    return json.loads(client.getresponse().read())


def place(client: http.client.HTTPConnection, number: int, names: list[str]) -> None:
    """One pod's three questions."""
    asked = pod(number)
    best = ask(client, "filter", {"Pod": asked, "NodeNames": names})["NodeNames"]
    scores = ask(client, "prioritize", {"Pod": asked, "NodeNames": best})
    first = max(scores, key=lambda entry: entry["Score"])["Host"]
    args = {"PodName": f"p{number}", "PodNamespace": "default", "PodUID": f"uid-{number}"}
    error = ask(client, "bind", {**args, "Node": first})["Error"]
    if error:
        raise SystemExit(f"bind of p{number}: {error}")


def measure(kind: str, count: int) -> list[float]:
    """Milliseconds of each pod."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(kind, count, theirs), daemon=True)
    process.start()
    client = http.client.HTTPConnection("127.0.0.1", ours.recv(), timeout=30)
    names = [f"node-{number:05d}" for number in range(count)]
    times = []
    for number in range(PODS):
        start = time.perf_counter()
        place(client, number, names)
        times.append((time.perf_counter() - start) * 1000)
    process.kill()
    process.join()
    return times


def main() -> None:
    """Print a line for each size and program, then one JSON object with the distance to null."""
    goals = []
    for size in [int(text) for text in sys.argv[1:]] or [100, 1000, 5000]:
        medians = {}
        for which in ("null", "ours"):
            found = measure(which, size)
            medians[which] = statistics.median(found[1:])
            print(
                f"{size:5d} nodes {which}: first {found[0]:7.1f} ms, then p50 "
                f"{medians[which]:6.2f}, mean {statistics.mean(found[1:]):6.2f}, "
                f"p99 {statistics.quantiles(found[1:], n=100)[98]:6.2f} ms a pod"
            )
        goals.append(
            {
                "name": f"median of a pod's three verbs over the null extender's, {size} nodes",
                "value": round(medians["ours"] - medians["null"], 3),
                "unit": "ms",
                "goal": None,
                "met": None,
            }
        )
    print(json.dumps({"bench": "extender verbs", "goals": goals}))


if __name__ == "__main__":
    main()
