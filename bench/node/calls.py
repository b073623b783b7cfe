"""Kubelet's two questions on a full node, and what the plugin takes while nobody asks.

The program runs as a process of its own on four simulated cards, and so does what stands in for
containerd; kubelet and the API server are those of its tests, in this process. Times are the
caller's, so the way there and back is in them. PreStartContainer ends when the runtime has read
the new file.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from plugin_api import ApiServer
from plugin_kit import FakeKubelet, Node, make_pod
from plugin_process import Process, build_fakegpu, install_cards, listed, registered, until
from processes import cpu_s, memory_mib, status_mib
from report import Report

PODS = 110
SPLIT = 30
CARDS = 4
GOAL_MS, GOAL_MIB, GOAL_PERCENT = 30.0, 110.0, 0.3
CLIENT = "import hami_device_plugin.__main__{}; print(open('/proc/self/status').read())"


async def measure(report: Report, starts: int, rest_s: float) -> None:
    """All figures of one plugin on one node."""
    with tempfile.TemporaryDirectory(prefix="hbn") as folder, ApiServer() as server:
        node = Node(Path(folder))
        install_cards(node, build_fakegpu(Path(folder) / "fakegpu"))
        config = Path(folder) / "device-config.yaml"
        config.write_text(f"nvidia: {{deviceSplitCount: {SPLIT}}}\n")
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        flags = (f"--device-config-file={config}", "--scan-seconds=30")
        async with reading(node.cdi), Process(node, server, *flags) as plugin:
            await listed(kubelet, SPLIT * CARDS)
            await until(lambda: registered(server), "the register annotation")
            bench = Bench(kubelet, server, [card.id for card in registered(server)])
            for number in range(PODS):
                await bench.begin(number)
            spent = cpu_s(plugin.pid)
            await bench.starts(report, starts)
            print(f"# CPU a start: {1000 * (cpu_s(plugin.pid) - spent) / starts:.1f} ms")
            # What is swept after all these starts is no rest.
            await until(lambda: len(list(node.cdi.iterdir())) <= PODS, "the sweep")
            report.add(f"resident memory, {PODS} pods", memory_mib(plugin.pid), "MiB", GOAL_MIB)
            spent = cpu_s(plugin.pid)
            await asyncio.sleep(rest_s)
            used = 100 * (cpu_s(plugin.pid) - spent) / rest_s
            report.add(f"CPU at rest over {rest_s:g} s, {PODS} pods", used, "%", GOAL_PERCENT)
        await kubelet.stop()
    print(f"# raw HTTP in place of the Kubernetes client would save {client_mib():.1f} MiB")


@asynccontextmanager
async def reading(folder: Path) -> AsyncIterator[None]:
    """What containerd does with our files."""
    program = Path(__file__).with_name("runtime.py")
    runtime = await asyncio.create_subprocess_exec(
        sys.executable, program, folder, stdout=subprocess.PIPE
    )
    assert runtime.stdout is not None
    await runtime.stdout.readline()
    yield
    runtime.kill()
    await runtime.wait()


class Bench:
    """A node whose pods come and go."""

    def __init__(self, kubelet: FakeKubelet, server: ApiServer, cards: Sequence[str]) -> None:
        self._kubelet, self._server, self._cards = kubelet, server, cards
        self._allocate_ms: list[float] = []
        self._prestart_ms: list[float] = []

    async def begin(self, number: int) -> None:
        """One pod is bound, admitted and started."""
        uid, slot = f"u{number}", f"slot-{number % PODS:04d}"
        card = self._cards[number % len(self._cards)]
        self._server.put(make_pod(uid, f"{card},NVIDIA,{1000 + number % 100},1:;"))
        begin = time.perf_counter()
        await self._kubelet.admit(uid, "c", [slot])
        admitted = time.perf_counter()
        await self._kubelet.start_container([slot])
        self._allocate_ms.append(1000 * (admitted - begin))
        self._prestart_ms.append(1000 * (time.perf_counter() - admitted))

    def end(self, number: int) -> None:
        """One pod is gone, for the API server and for kubelet."""
        self._server.remove(self._server.pods[f"u{number}"])
        self._kubelet.forget(f"u{number}")

    async def starts(self, report: Report, count: int) -> None:
        """So many starts on the full node, each in the place of the oldest pod."""
        self._allocate_ms.clear()
        self._prestart_ms.clear()
        before = writes(self._server)
        for number in range(PODS, PODS + count):
            self.end(number - PODS)
            await self.begin(number)
        for name, found in (
            ("Allocate", self._allocate_ms),
            ("PreStartContainer", self._prestart_ms),
        ):
            cuts = statistics.quantiles(found, n=100)
            print(
                f"{name}, {PODS} pods, {count} calls: p50 {cuts[49]:.1f} ms, max {max(found):.1f}"
            )
            report.add(f"{name} p99, {PODS} pods", cuts[98], "ms", GOAL_MS)
        each = (writes(self._server) - before) / count
        report.add("API writes a started pod, as the server counts them", each, "", 0)


def writes(server: ApiServer) -> int:
    """Requests so far that change something: whatever is no GET."""
    with server.queries.mutex:
        return sum(verb != "GET" for verb, _, _ in server.queries.queue)


def client_mib() -> float:
    """What the Kubernetes client adds to a process of ours."""
    with_it, without = (
        status_mib(
            subprocess.run(
                [sys.executable, "-c", CLIENT.format(more)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for more in (", hami_device_plugin.cluster_side", "")
    )
    return with_it - without
