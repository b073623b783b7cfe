"""How soon a low-priority task runs again once the high-priority one is idle.

Two tenants on one fake card, each with the limiter, and the monitor's own feedback over their
files; by the card's ledger, from the end of the one's last kernel to the next of the other.
"""

import json
import shutil
import statistics
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lab
from msgspec import convert
from node import pods, uid

from hami_monitor.governor import Governor
from hamikit.objects import Pod
from hamikit.region import create_usage

SHAPE = "synced"
ROUNDS, WORK_S, REST_S, EVERY_MS = 20, 0.6, 0.6, 5
Samples = Sequence[tuple[float, dict[str, int]]]


def tenant(node: lab.Node, root: Path, number: int, priority: int) -> lab.Container:
    """A container without a limit of its own."""
    folder = root / f"{uid(number)}_main"
    folder.mkdir(parents=True)
    shutil.copy(node.lab.library, folder)
    create_usage(folder / "usage")
    container = lab.Container(node, 0, folder)
    container.limit(0, priority=priority)
    return container


def pauses(samples: Samples, high: Sequence[int], low: int) -> list[float]:
    """Milliseconds from each high task's last kernel to the low task's next."""
    found = []
    for pid in map(str, high):
        total = max(busy.get(pid, 0) for _, busy in samples)
        end = next(i for i, (_, busy) in enumerate(samples) if busy.get(pid, 0) == total)
        before = samples[end][1].get(str(low), 0)
        again = next(at for at, busy in samples[end:] if busy.get(str(low), 0) > before)
        found.append(1000 * (again - samples[end][0]))
    return found


def measured(built: lab.Lab, folder: Path) -> list[float]:
    """The pauses of all rounds."""
    node = lab.Node(built, folder / "node", modes={"slice_us": 2000})
    root = folder / "containers"
    high, low = tenant(node, root, 0, 0), tenant(node, root, 1, 1)
    present = convert(pods()["items"][:2], list[Pod])
    stopping, changed, rest = threading.Event(), threading.Event(), threading.Event()
    thread = Governor(root, lambda: present, changed).start(stopping)
    seconds = 60 * ROUNDS
    watch = node.watch(0, EVERY_MS, int(1000 * seconds / EVERY_MS))
    # A pipe that nobody reads would hold it up.
    output = ThreadPoolExecutor(1).submit(watch.communicate)
    slave = low.start(built.load, SHAPE, str(seconds), "1")
    pids = []
    try:
        for _ in range(ROUNDS):
            rest.wait(REST_S)
            master = high.start(built.load, SHAPE, str(WORK_S), "1")
            master.communicate()
            pids.append(master.pid)
        rest.wait(REST_S)
    finally:
        watch.terminate()
        slave.kill()
        slave.communicate()
        stopping.set()
        changed.set()
        thread.join()
    lines = [json.loads(line) for line in output.result()[0].splitlines() if line.endswith("}")]
    samples = [(line["at_ns"] / 1e9, line["processes"]) for line in lines]
    return pauses(samples, pids, slave.pid)


def worst_ms() -> float:
    """The longest pause of all rounds."""
    with tempfile.TemporaryDirectory() as folder:
        took = measured(lab.build(Path(folder)), Path(folder))
    print(
        f"feedback: a low-priority task runs again after p50 {statistics.median(took):.0f} ms, "
        f"worst of {len(took)} {max(took):.0f} ms (HAMi looks every 5 s)"
    )
    return max(took)
