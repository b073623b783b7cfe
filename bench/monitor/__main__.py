"""The monitor on a full node, beside an exporter of nothing on the same listener.

Eight cards, 100 containers, 1,000 processes with a slot each. Both programs run in processes of
their own and are scraped in turns. `python bench/monitor [seconds]`.
"""

import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node import A_CONTAINER, CARDS, CONTAINERS, lay_out
from programs import monitor, nothing

SCRAPES, SCRAPE_EVERY_S, SECONDS = 300, 15.0, 45.0


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

    def cpu_s(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """What it holds of memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


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


def share_of_a_core(server: Server, seconds: float) -> float:
    """Percent of a core over some seconds in which it is scraped every 15."""
    before, begin = server.cpu_s(), time.monotonic()
    while time.monotonic() - begin < seconds:
        server.scrape()
        time.sleep(min(SCRAPE_EVERY_S, max(seconds - (time.monotonic() - begin), 0)))
    return 100 * (server.cpu_s() - before) / (time.monotonic() - begin)


def goal(name: str, value: float, unit: str, limit: float) -> Any:
    """A figure with what it is to be at most."""
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "goal": limit,
        "met": value <= limit,
    }


def measure(folder: str, pids: list[int], seconds: float) -> None:
    """Print both, then one JSON object with the goals."""
    base, ours = (Server(work, folder, pids) for work in (nothing, monitor))
    try:
        wait_complete(ours)
        idle = share_of_a_core(ours, seconds)
        ours.times_ms.clear()
        for _ in range(SCRAPES):
            base.scrape()
            text = ours.scrape()
        findings = text.count(b"hami_audit_finding_processes{")
        memory = ours.memory_mib()
        base_memory = base.memory_mib()
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
    goals = [
        goal("scrape p99", statistics.quantiles(ours.times_ms, n=100)[98], "ms", 50.0),
        goal("scrape every 15 s and audit every second", idle, "% of a core", 2.0),
        goal("resident memory", memory, "MiB", 110.0),
    ]
    print(json.dumps({"bench": "monitor", "goals": goals}))


def main() -> None:
    """Make the node, measure, and remove it."""
    pids = sleepers(CONTAINERS * A_CONTAINER)
    try:
        with tempfile.TemporaryDirectory() as folder:
            held = lay_out(Path(folder), pids)
            measure(folder, pids, float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
            for lock in held:
                lock.close()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
