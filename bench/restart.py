"""A fresh extender on a large cluster: seconds to its first answer, its memory, its CPU at rest.

The extender is the shipped program with its shipped settings; the API server is simulated and
serves nodes and device pods page by page, each pod with all that a real one carries (5 KB).
Run: uv run --frozen python bench/restart.py [nodes pods [seconds at rest]]
"""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
from cluster import CARDS, node, pod
from processes import cpu_s, memory_mib

from hamikit import names
from hamikit.codec import GrantedDevice, encode_grant

VERBS, STATUS = 19380, 19395
GOAL_FIRST_S, GOAL_RSS_MIB, GOAL_CPU_PERCENT = 15.0, 600.0, 0.3
SETTLED_S = 5
DEFAULTS = (5000, 100_000, 300)
"""Nodes, pods, seconds at rest."""


def pod_template() -> bytes:
    """A running pod with all that a real one carries; its own parts stand between % signs."""
    value = pod(0)
    value["metadata"] = {
        "name": "%NAME%", "namespace": "team-%NUMBER%", "uid": "%UID%", "resourceVersion": "1",
        "creationTimestamp": "2026-11-23T08:00:00Z", "generateName": "job-",
        "labels": {names.LABEL_DEVICE_POD: "true", "job-name": "training", "app": "train"},
        "annotations": {
            names.POD_DEVICES_ALLOCATED: "%GRANT%", names.POD_DEVICES_TO_ALLOCATE: "%GRANT%",
            names.POD_NODE: "%NODE%", names.POD_TIME: "1787293239",
            names.POD_BIND_PHASE: names.BIND_SUCCESS, names.POD_BIND_TIME: "1787293239",
        },
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "training",
                             "uid": "c2d9a4c1-0000-0000-0000-000000000000", "controller": True}],
        "managedFields": [
            {"manager": manager, "operation": "Update", "apiVersion": "v1",
             "fieldsType": "FieldsV1",
             "fieldsV1": {f"f:{part}": {f"f:field-{i}": {".": {}, "f:value": {}} for i in range(12)}
                          for part in ("metadata", "spec", "status")}}
            for manager in ("kube-controller-manager", "hami", "kubelet")
        ],
    }  # fmt: skip
    spec = value["spec"]
    spec["nodeName"], spec["schedulerName"] = "%NODE%", names.SCHEDULER_NAME  # type: ignore[index]
    spec["volumes"] = [  # type: ignore[index]
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "kube-api-access", "projected": {"sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca"}]}},
        ]}},
    ]  # fmt: skip
    container = spec["containers"][0]  # type: ignore[index]
    container["env"] = [{"name": f"VARIABLE_{i}", "value": "something or other"} for i in range(8)]
    container["command"] = ["python", "-m", "train", "--epochs=90", "--batch-size=256"]
    value["status"] = {
        "phase": "Running", "podIP": "10.0.0.1",
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": "2026-11-23T08:00:01Z"}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "containerStatuses": [
            {"name": "c", "ready": True, "restartCount": 0, "image": "registry.example/train:1",
             "containerID": "containerd://0123456789abcdef", "state": {"running": {}}}
        ],
    }  # fmt: skip
    return json.dumps(value).encode()


class Cluster:
    """The API server's answers, made when they are asked for."""

    def __init__(self, nodes: int, pods: int) -> None:
        self._nodes, self._pods = nodes, pods
        # Cut once: this server must not be what is measured.
        self._pieces = re.split(rb"%([A-Z]+)%", pod_template())

    def page(self, path: str, start: int, limit: int) -> bytes:
        """One page of a list."""
        total = self._pods if path.endswith("/pods") else 0
        make = self._pod if total else self._node
        total = total or (self._nodes if path.endswith("/nodes") else 0)
        end = min(start + limit, total)
        more = f'"continue":"{end}",' if end < total else ""
        head = f'{{"metadata":{{{more}"resourceVersion":"1"}},"items":['.encode()
        return head + b",".join(make(number) for number in range(start, end)) + b"]}"

    def _node(self, number: int) -> bytes:
        return msgspec.json.encode(node(f"node-{number:05d}"))

    def _pod(self, number: int) -> bytes:
        name = f"node-{number % self._nodes:05d}"
        card = f"GPU-{name}-{number // self._nodes % CARDS}"
        grant = encode_grant(((GrantedDevice(card, "NVIDIA", 1000 + number % 37 * 100, 5),),))
        values = {
            b"NAME": f"train-{number}".encode(),
            b"NUMBER": str(number % 50).encode(),
            b"UID": f"{number:08d}-aaaa-bbbb-cccc-000000000000".encode(),
            b"GRANT": grant.encode(),
            b"NODE": name.encode(),
        }
        pieces = list(self._pieces)
        pieces[1::2] = [values[key] for key in pieces[1::2]]
        return b"".join(pieces)


def handler(
    cluster: Cluster, end: threading.Event, writes: "Synchronized[int]"
) -> type[BaseHTTPRequestHandler]:
    """Lists, and watches on which nothing ever happens; writes are counted and refused."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            if "watch" in query:
                self.end_headers()
                end.wait(float(query["timeoutSeconds"][0]))
                self.close_connection = True
                return
            start, limit = int(query.get("continue", ["0"])[0]), int(query.get("limit", ["500"])[0])
            body = cluster.page(parts.path, start, limit)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _count(self) -> None:
            with writes.get_lock():
                writes.value += 1
            self.send_error(403)

        def do_POST(self) -> None:
            self._count()

        def do_PUT(self) -> None:
            self._count()

        def do_PATCH(self) -> None:
            self._count()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def serve(nodes: int, pods: int, ready: Connection, writes: "Synchronized[int]") -> None:
    """The API server's process; says its port and runs until killed."""
    cluster = Cluster(nodes, pods)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(cluster, threading.Event(), writes))
    server.daemon_threads = True
    ready.send(server.server_address[1])
    server.serve_forever()


def kubeconfig(port: int, folder: str) -> str:
    """A file that leads to the simulated API server."""
    path = Path(folder) / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )  # fmt: skip
    return str(path)


def first_answer(process: subprocess.Popen[bytes], nodes: int, started: float) -> float:
    """Seconds from the start to an answer that names nodes."""
    body = json.dumps(
        {"Pod": pod(1_000_000), "NodeNames": [f"node-{i:05d}" for i in range(nodes)]}
    ).encode()
    url = f"http://127.0.0.1:{VERBS}/filter"
    while process.poll() is None:
        try:
            with urllib.request.urlopen(url, body, timeout=60) as answer:
                if json.load(answer)["NodeNames"]:
                    return time.monotonic() - started
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.05)
    raise SystemExit(f"the extender ended with {process.returncode}")


def measure(nodes: int, pods: int, rest_s: float) -> tuple[float, float, float, int]:
    """Seconds to the first answer, MiB, percent of a core at rest, API writes; prints them."""
    ours, theirs = multiprocessing.Pipe()
    writes = multiprocessing.Value("i", 0)
    server = multiprocessing.Process(target=serve, args=(nodes, pods, theirs, writes), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "KUBECONFIG": kubeconfig(ours.recv(), folder)}
        flags = [f"--bind-address=127.0.0.1:{VERBS}", f"--status-address=127.0.0.1:{STATUS}"]
        flags += ["--explain-port=0", "--log-level=warning"]
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "hami_extender", *flags], env=environ)
        try:
            first = first_answer(process, nodes, started)
            spent = cpu_s(process.pid)
            print(
                f"{nodes} nodes, {pods} pods: first answer after {first:.1f} s "
                f"({spent:.1f} s of CPU of our own)"
            )
            time.sleep(SETTLED_S)
            before, at = cpu_s(process.pid), time.monotonic()
            time.sleep(rest_s)
            cpu = 100 * (cpu_s(process.pid) - before) / (time.monotonic() - at)
            rss, peak = (memory_mib(process.pid, field) for field in ("VmRSS", "VmHWM"))
            print(
                f"resident {rss:.0f} MiB (peak {peak:.0f}), at rest {cpu:.2f} % of a core, "
                f"{writes.value} API writes"
            )
        finally:
            process.terminate()
            process.wait()
            server.kill()
            server.join()
    return first, rss, cpu, writes.value


def goals(nodes: int, pods: int, rest_s: float) -> list[dict[str, object]]:
    """Measure one restart."""
    first, rss, cpu, writes = measure(nodes, pods, rest_s)
    return [
        {
            "name": f"{name}, {nodes} nodes, {pods} pods",
            "value": round(value, 2),
            "unit": unit,
            "goal": goal,
            "met": value <= goal,
        }
        for name, value, unit, goal in (
            ("restart to first answer", first, "s", GOAL_FIRST_S),
            ("resident memory", rss, "MiB", GOAL_RSS_MIB),
            (f"CPU at rest over {rest_s:.0f} s", cpu, "% of a core", GOAL_CPU_PERCENT),
            ("API writes when nothing happens", writes, "writes", 0),
        )
    ]


def main() -> None:
    """Print the figures, then one JSON object."""
    numbers = [int(text) for text in sys.argv[1:]]
    nodes, pods, rest_s = (*numbers, *DEFAULTS[len(numbers) :])
    print(json.dumps({"bench": "extender restart", "goals": goals(nodes, pods, rest_s)}))


if __name__ == "__main__":
    main()
