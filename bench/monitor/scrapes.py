"""The monitor on a full node, beside an exporter of nothing on the same listener.

Eight cards, 100 containers, 1,000 processes with a slot each. Both programs run in processes of
their own and are scraped in turns.
"""

import multiprocessing
import os
import signal
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import bypass
import feedback
import page
from node import A_CONTAINER, CARDS, CONTAINERS, lay_out, work
from processes import cpu_s, memory_mib
from programs import monitor, nothing
from report import Report

SCRAPES, SCRAPE_EVERY_S = 300, 15


class Server:
    """One of the two, and what was seen of it."""

    def __init__(self, work: Callable[..., None], folder: str, pids: list[int]) -> None:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=work, args=(folder, pids, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that a program that ends is noticed
        self.url = f"http://127.0.0.1:{ours.recv()}/metrics"
        self.times_ms: list[float] = []

    def scrape(self) -> bytes:
        """One scrape, timed."""
        begin = time.perf_counter()
        with urllib.request.urlopen(self.url, timeout=30) as answer:
            text: bytes = answer.read()
        self.times_ms.append((time.perf_counter() - begin) * 1000)
        return text


def sleepers(count: int) -> list[int]:
    """Processes that do nothing until they are killed."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        pids.append(pid)
    return pids


def wait_complete(server: Server) -> None:
    """Until a scrape has every container as NVML sees it."""
    end = time.monotonic() + 60
    while server.scrape().count(b"hami_container_device_host_memory_bytes{") < CONTAINERS:
        if time.monotonic() > end:
            raise SystemExit(server.scrape().decode()[-3000:])
        time.sleep(0.2)
    server.times_ms.clear()


def share_of_a_core(server: Server, seconds: float, folder: Path) -> float:
    """Percent of a core over some seconds in which it is scraped every 15 and everybody works."""
    before, begin = cpu_s(server.process.pid), time.monotonic()
    for turn in range(int(seconds)):
        if turn % SCRAPE_EVERY_S == 0:
            server.scrape()
        work(folder, turn)
        time.sleep(max(begin + turn + 1 - time.monotonic(), 0))
    return 100 * (cpu_s(server.process.pid) - before) / (time.monotonic() - begin)


def measure(folder: str, pids: list[int], seconds: float, thieves: list[int]) -> None:
    """Print both, then one JSON object with the goals."""
    base, ours = (Server(work, folder, pids) for work in (nothing, monitor))
    try:
        wait_complete(ours)
        idle = share_of_a_core(ours, seconds, Path(folder))
        ours.times_ms.clear()
        for _ in range(SCRAPES):
            base.scrape()
            text = ours.scrape()
        findings = text.count(b"hami_audit_finding_processes{")
        memory = memory_mib(ours.process.pid)
        base_memory = memory_mib(base.process.pid)
    finally:
        for server in (base, ours):
            server.process.kill()
            server.process.join()
    if findings:
        raise SystemExit(f"the audit has {findings} findings where nothing is wrong")
    print(
        f"{CARDS} cards, {CONTAINERS} containers, {len(pids)} processes; {len(text)} bytes a scrape"
    )
    for name, server, held in (("nothing", base, base_memory), ("monitor", ours, memory)):
        p99 = statistics.quantiles(server.times_ms, n=100)[98]
        p50 = statistics.median(server.times_ms)
        print(f"{name:8s} scrape p50 {p50:6.2f} ms, p99 {p99:6.2f} ms, memory {held:6.1f} MiB")
    p99 = statistics.quantiles(ours.times_ms, n=100)[98]
    report = Report("monitor")
    report.add("scrape p99", p99, "ms", 50)
    report.add("scrape every 15 s and audit every second", idle, "% of a core", 2)
    report.add("resident memory", memory, "MiB", 110)
    reported, forgotten = bypass.worst_s(folder, pids, thieves)
    report.add("a process without the limiter is reported after", reported, "s", 2)
    report.add("a killed process is gone from every metric after", forgotten, "s", 2)
    report.add("low priority runs again after, worst of 20", feedback.worst_ms(), "ms", 250)
    report.add("status page of 1,000 nodes, server time", page.server_ms(), "ms", 200)
    report.end()


def run(seconds: float) -> None:
    """Make the node, measure, and remove it."""
    pids, thieves = sleepers(CONTAINERS * A_CONTAINER), sleepers(bypass.ROUNDS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            held = lay_out(Path(folder), pids)
            measure(folder, pids, seconds, thieves)
            for lock in held:
                lock.close()
    finally:
        for pid in pids + thieves:
            os.kill(pid, signal.SIGKILL)
        for pid in pids + thieves:
            os.waitpid(pid, 0)
