"""Many nodes and pods on a control plane without kubelets, and the extenders that place them."""

import contextlib
import json
import os
import re
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cluster import CARDS, node
from controlplane import ControlPlane, answers, program, until
from processes import cpu_s, free_port

from hamikit import names
from hamikit.cluster import Api
from hamikit.devices import NVIDIA
from hamikit.objects import ListMeta, Pod

Json = dict[str, Any]

WRITERS = 8
PODS = "/api/v1/namespaces/default/pods"
BOUND = {"fieldSelector": "spec.nodeName!="}
OURS, NULL = "ours", "null"
_ADDED = b'{"type":"ADDED"'


def node_names(count: int) -> list[str]:
    """The nodes of a cluster of this size."""
    return [f"node-{number:05d}" for number in range(count)]


def node_object(name: str) -> Json:
    """A ready node of eight cards that speaks late binding."""
    said = node(name)
    room = {"cpu": "96", "memory": "1Ti", "pods": "250", NVIDIA.count: str(CARDS * 10)}
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "annotations": said.metadata.annotations,
                     "labels": {"kubernetes.io/hostname": name}},
        "status": {"capacity": room, "allocatable": room,
                   "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


def pod_object(name: str, limits: Json, *, node_name: str = "", grant: str = "") -> Json:
    """A pod as the webhook leaves it; with a node and a grant one that runs already."""
    held = {names.POD_NODE: node_name, names.POD_DEVICES_ALLOCATED: grant} if grant else {}
    resources = {"limits": limits, "requests": {"cpu": "500m", "memory": "2Gi", **limits}}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": held,
                     "labels": {names.LABEL_DEVICE_POD: names.LABEL_DEVICE_POD_VALUE}},
        "spec": {"schedulerName": names.SCHEDULER_NAME, "terminationGracePeriodSeconds": 0,
                 "containers": [{"name": "c", "image": "c", "resources": resources}],
                 **({"nodeName": node_name} if node_name else {})},
    }  # fmt: skip


def create(api: Api, path: str, objects: Iterable[Json]) -> None:
    """Create objects, several at a time."""
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(lambda value: api.create(path, value), objects):
            pass


def delete_all(api: Api, path: str) -> None:
    """Delete every object of a collection."""
    api.request("DELETE", path, body={"gracePeriodSeconds": 0}, timeout=300)


class _Listed(msgspec.Struct):
    metadata: ListMeta


class Bindings:
    """When which pod was bound; heard from a watch until it is closed."""

    def __init__(self, api: Api) -> None:
        version = api.get(PODS, _Listed, {"limit": 1}).metadata.resource_version
        query: dict[str, str | int] = {**BOUND, "watch": 1, "resourceVersion": version}
        self._stream = api.stream(PODS, query, 3600)
        self._heard: list[tuple[float, bytes]] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        rest = b""
        with contextlib.suppress(Exception):  # closing the stream ends the reading somehow
            for chunk in self._stream.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                # A later change of a bound pod is no binding.
                new = [(time.monotonic(), line) for line in lines if line.startswith(_ADDED)]
                with self._changed:
                    self._heard += new
                    self._changed.notify_all()

    def count(self) -> int:
        """How many pods are bound by now."""
        with self._changed:
            return len(self._heard)

    def wait(self, count: int, seconds: float) -> bool:
        """Until so many are bound; False when the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._heard) >= count, seconds)

    def wait_quiet(self, count: int, quiet_s: float) -> None:
        """Until so many are bound, or none was for a while."""
        while (before := self.count()) < count and self.wait(before + 1, quiet_s):
            pass

    def times(self) -> list[float]:
        """When each was heard of."""
        with self._changed:
            return [at for at, _ in self._heard]

    def pods(self) -> list[Pod]:
        """The bound pods."""
        with self._changed:
            lines = [line for _, line in self._heard]
        return [msgspec.convert(json.loads(line)["object"], Pod) for line in lines]

    def close(self) -> None:
        """Stop listening."""
        self._stream.shutdown()
        self._thread.join()
        self._stream.close()


@dataclass(frozen=True, slots=True)
class Running:
    """An extender at work."""

    port: int
    status: int
    pid: int

    def metrics(self) -> str:
        """What ours says of itself; null says nothing."""
        return metrics_of(f"http://127.0.0.1:{self.status}/metrics")

    def cpu_s(self) -> float:
        """Seconds of CPU that it has used."""
        return cpu_s(self.pid)


@contextlib.contextmanager
def extender(plane: ControlPlane, kind: str, flags: Sequence[str] = ()) -> Iterator[Running]:
    """Run ours or the null extender, until it is ready and as long as the block."""
    port, status = free_port(), free_port()
    here = f"127.0.0.1:{port}"
    argv = [sys.executable, str(Path(__file__).with_name("null_extender.py")), here]
    if kind == OURS:
        argv = [sys.executable, "-m", "hami_extender", f"--bind-address={here}", *flags]
        argv += [f"--status-address=127.0.0.1:{status}", "--explain-port=0", "--start-delay=0"]
        argv += ["--log-level=warning"]
    environ = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
    with program(plane.folder / f"{kind}.log", *argv, env=environ) as pid:
        if kind == OURS:
            until("extender", lambda: answers(f"http://127.0.0.1:{status}/readyz"))
        else:
            until("null extender", lambda: _listens(port))
        yield Running(port, status, pid)


def _listens(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/nothing", timeout=5):
            return True
    except urllib.request.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def metrics_of(url: str) -> str:
    """What somebody says of himself."""
    # kube-scheduler makes its own certificate in memory: there is nothing to check it against.
    unchecked = ssl._create_unverified_context()  # noqa: SLF001
    with urllib.request.urlopen(url, timeout=30, context=unchecked) as answer:
        text: str = answer.read().decode()
        return text


def figure(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    total = 0.0
    for line in text.splitlines():
        found = re.match(rf"{name}(?:\{{(.*)\}})? (\S+)$", line)
        said = f",{found[1]}," if found else ""
        if found and all(f',{key}="{value}",' in said for key, value in labels.items()):
            total += float(found[2])
    return total


def goal(name: str, value: float, unit: str, bound: float | None, *, least: bool = False) -> Json:
    """One figure beside what it should be, at most or `least`."""
    met = None if bound is None else (value >= bound if least else value <= bound)
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": bound, "met": met}
