"""Our webhook beside one that answers "allowed" to everything, behind the same TLS front.

Both run on falcon and waitress behind hami_webhook.tls in a process of their own; the same client
asks both in turns over kept connections. Run: uv run --frozen python bench/webhook.py [requests]
"""

import asyncio
import json
import multiprocessing
import ssl
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

import falcon
import msgspec
from processes import cpu_s, memory_mib
from prometheus_client import CollectorRegistry

from hami_webhook.app import backend, create_app
from hami_webhook.certificate import LiveCertificate
from hami_webhook.installer import write_files
from hami_webhook.issuer import issue
from hami_webhook.metrics import Metrics
from hami_webhook.rules import Rules
from hami_webhook.tls import Front, Limits
from hamikit.service import App

HOST = "hami-webhook.hami-system.svc"
CONNECTIONS = 16
ROUND = 800
# So many of our answers are compared with the baseline's; the rest is for the memory's sake.
PAIRED = 40_000
MEMORY_FROM, MEMORY_TO = 10_000, 100_000


def pod() -> Any:
    """A pod of about 5 KB as a controller creates it: three containers, one with a slice."""
    containers = [
        {
            "name": f"c{index}",
            "image": "registry.example/team/training:2026-11",
            "env": [{"name": f"SETTING_{j}", "value": "x" * 20} for j in range(20)],
            "resources": {"limits": {"nvidia.com/gpumem": "3000"} if index == 0 else {}},
            "volumeMounts": [{"name": "data", "mountPath": f"/mnt/{j}"} for j in range(4)],
        }
        for index in range(3)
    ]
    fields = {f"f:field-{index}": {} for index in range(60)}
    return {
        "kind": "Pod",
        "metadata": {
            "generateName": "p-",
            "managedFields": [{"manager": "kube", "fieldsV1": fields}],
        },
        "spec": {
            "containers": containers,
            "volumes": [{"name": "data", "emptyDir": {}}],
            "schedulerName": "default-scheduler",
        },
    }


def question() -> bytes:
    """The HTTP request, ready to be sent."""
    request = {"uid": "u", "kind": {"kind": "Pod"}, "operation": "CREATE", "namespace": "team"}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
    body = json.dumps({**review, "request": {**request, "object": pod()}}).encode()
    head = (
        f"POST /mutate HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Asked(msgspec.Struct):
    uid: str


class _Review(msgspec.Struct):
    request: _Asked


class Allowed:
    """The baseline: says yes to whatever it is asked."""

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """Read the question's uid and nothing else."""
        review = msgspec.json.decode(request.bounded_stream.read(), type=_Review)
        answer = {"uid": review.request.uid, "allowed": True}
        response.content_type = falcon.MEDIA_JSON
        response.data = msgspec.json.encode(
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}
        )


def allowed_app() -> App:
    """The protocol and nothing else."""
    app: App = falcon.App()
    app.add_route("/mutate", Allowed())
    return app


def our_app() -> App:
    """The webhook as it is shipped."""
    rules = Rules()
    return create_app(lambda: rules, Metrics(CollectorRegistry()))


APPS = {"allowed": allowed_app, "ours": our_app}


def serve(kind: str, folder: str, ready: Connection) -> None:
    """Serve until killed; says its port."""

    async def forever() -> None:
        certificate = LiveCertificate(f"{folder}/tls")
        certificate.refresh()
        path = f"{folder}/{kind}.sock"
        backend(APPS[kind](), path, connections=Limits().connections)
        front = Front(certificate.context, path)
        front.start("127.0.0.1", 0)
        ready.send(front.port)
        await asyncio.Event().wait()

    asyncio.run(forever())


@dataclass
class Server:
    """One of the two, and what was seen of it."""

    kind: str
    folder: str
    medians_ms: list[float] = field(default_factory=list)
    p99s_ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    asked: int = 0
    compared: int = 0

    def start(self) -> None:
        """Begin to serve."""
        ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(
            target=serve, args=(self.kind, self.folder, theirs), daemon=True
        )
        self.process.start()
        self.port = ours.recv()

    async def connect(self, context: ssl.SSLContext) -> None:
        """Open the connections that are kept."""
        self.links = [
            await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=HOST)
            for _ in range(CONNECTIONS)
        ]

    async def round(self, text: bytes, count: int, *, keep: bool = True) -> None:
        """`count` questions over all connections at once."""
        times: list[float] = []
        begin, computed = time.perf_counter(), cpu_s(self.process.pid)
        await asyncio.gather(
            *(
                ask(reader, writer, text, count // CONNECTIONS, times)
                for reader, writer in self.links
            )
        )
        self.asked += count
        if keep:
            self.rates.append(len(times) / (time.perf_counter() - begin))
            self.cpu_s += cpu_s(self.process.pid) - computed
            self.compared += count
            self.medians_ms.append(statistics.median(times))
            self.p99s_ms.append(statistics.quantiles(times, n=100)[98])


async def ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    text: bytes,
    count: int,
    times: list[float],
) -> None:
    """Questions on one connection, one after the other."""
    for _ in range(count):
        begin = time.perf_counter()
        writer.write(text)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        if not head.startswith(b"http/1.1 200"):
            raise SystemExit(f"answer: {head!r}")
        times.append((time.perf_counter() - begin) * 1000)


def goal(name: str, value: float, unit: str, limit: float, *, at_least: bool = False) -> Any:
    """A figure with what it is to be."""
    met = value >= limit if at_least else value <= limit
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": limit, "met": met}


async def compare(servers: list[Server], context: ssl.SSLContext, total: int) -> float:
    """Ask both in turns, then ours alone up to the end; MiB that ours grew meanwhile."""
    text, first = question(), 0.0
    for server in servers:
        await server.connect(context)
        await server.round(text, ROUND, keep=False)
    ours = servers[1]
    while ours.asked < total:
        for server in servers if ours.asked < PAIRED else [ours]:
            await server.round(text, ROUND, keep=ours.asked < PAIRED)
        if not first and ours.asked >= MEMORY_FROM:
            first = memory_mib(ours.process.pid)
    return memory_mib(ours.process.pid) - first


def main() -> None:
    """Print both, then one JSON object with the goals."""
    total = int(sys.argv[1]) if len(sys.argv) > 1 else MEMORY_TO
    with tempfile.TemporaryDirectory() as folder:
        bundle = issue(HOST, datetime.now(UTC))
        write_files(f"{folder}/tls", bundle)
        servers = [Server(kind, folder) for kind in APPS]
        try:
            for server in servers:
                server.start()
            context = ssl.create_default_context(cadata=bundle.authorities.decode())
            grown = asyncio.run(compare(servers, context, total))
        finally:
            for server in servers:
                server.process.kill()
                server.process.join()
    for server in servers:
        print(
            f"{server.kind:8s} {statistics.median(server.rates):7.0f} requests/s, "
            f"p50 {statistics.median(server.medians_ms):6.2f} ms, "
            f"p99 {statistics.median(server.p99s_ms):6.2f} ms, "
            f"{server.cpu_s / server.compared * 1e6:4.0f} us of CPU each "
            f"(medians of {len(server.rates)} rounds)"
        )
    base, ours = servers
    # Round by round, so that what else the machine does meets both.
    pairs = list(zip(base.rates, ours.rates, strict=True))
    share = statistics.median(mine / theirs for theirs, mine in pairs)
    slower = zip(base.p99s_ms, ours.p99s_ms, strict=True)
    added = statistics.median(mine - theirs for theirs, mine in slower)
    goals = [
        goal("requests/s over the baseline's, 16 connections", share, "", 0.8, at_least=True),
        goal("p99 added over the baseline", added, "ms", 3.0),
        goal(f"memory from request {MEMORY_FROM} to {total}", grown, "MiB", 2.0),
    ]
    print(json.dumps({"bench": "webhook", "goals": goals}))


if __name__ == "__main__":
    main()
