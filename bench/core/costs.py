"""What a call costs: native beside ours, in turns, thread CPU time per call."""

import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lab import Container, Lab, Node
from report import Report

ROUNDS = 9
LIVE = (0, 1_000, 10_000, 100_000, 1_000_000)
OWN_STOPS = 6
"""Leaving one raise() and entering the next, as the native program has them too."""


def added(
    native: Container, ours: Container, *command: str | Path, key: str = "mean_ns"
) -> tuple[float, float]:
    """Median of what native takes and of what ours takes more, round by round in turns."""
    base, more = [], []
    for _ in range(ROUNDS):
        before = native.run(*command)[key]
        value = ours.run(*command)[key]
        after = native.run(*command)[key]
        base.append((before + after) / 2)
        more.append(value - base[-1])
    return statistics.median(base), statistics.median(more)


def together(container: Container, cost: Path, count: int) -> float:
    """The mean over several processes that launch at once."""
    started = [container.start(cost, "launch") for _ in range(count)]
    outputs = [process.communicate()[0] for process in started]
    return statistics.mean(float(output.split('"mean_ns":')[1].rstrip("}\n")) for output in outputs)


def launches(lab: Lab, folder: Path, report: Report) -> None:
    """Launches without a compute limit, with one, and from four processes."""
    node, cost = Node(lab, folder / "launches", 4), lab.program("cost")
    native, free, limited = node.native(), node.container(), node.container(50)
    base, more = added(native, free, cost, "launch")
    print(f"native launch of an empty kernel: {base:.1f} ns")
    report.add("launch, no compute limit, over native", more, "ns", 3)
    _, more = added(native, limited, cost, "launch")
    report.add("launch, compute limit 50, over native", more, "ns", 15)
    differences = []
    for _ in range(ROUNDS):
        before = together(native, cost, 4)
        ours = together(limited, cost, 4)
        after = together(native, cost, 4)
        differences.append(ours - (before + after) / 2)
    value = statistics.median(differences)
    report.add("launch, compute limit 50, 4 processes, over native", value, "ns", 15)


def memory(lab: Lab, folder: Path, report: Report) -> None:
    """Allocation with its release, by how much else is allocated; cuMemGetInfo."""
    node, cost = Node(lab, folder / "memory"), lab.program("cost")
    native, ours = node.native(), node.container()
    costs = []
    for live in LIVE:
        base, more = added(native, ours, cost, "crowd", str(live))
        costs.append(more)
        name = f"alloc+free, {live} others live, over native ({base:.0f} ns)"
        report.add(name, more, "ns", 150)
    report.add("alloc+free, slope from 0 to 10^6 live", costs[-1] - costs[0], "ns", 50)
    base, more = added(native, ours, cost, "info")
    print(f"cuMemGetInfo, over native ({base:.0f} ns): {more:.1f} ns")


def syscalls(lab: Lab, folder: Path, report: Report) -> None:
    """System calls on the fast paths, counted by ptrace."""
    node, cost = Node(lab, folder / "syscalls"), lab.program("cost")
    paths: Sequence[tuple[str, int]] = (("launch", 0), ("launch", 50), ("pair", 0), ("info", 0))
    for operation, cores in paths:
        answer = node.container(cores).run(cost, operation, "1")
        native = node.native().run(cost, operation, "1")
        extra = answer["stops"] - native["stops"]
        assert native["stops"] == OWN_STOPS, "the fake driver itself makes system calls"
        limit = f", compute limit {cores}" if cores else ""
        report.add(f"system calls in {answer['calls']} x {operation}{limit}", extra / 2, "", 0)


def starts(lab: Lab, folder: Path, report: Report) -> None:
    """What a process's start takes more; 32 at once while cuInit sleeps 50 ms."""
    cost = lab.program("cost")
    node = Node(lab, folder / "starts")
    native, ours = node.native(), node.container(50)
    _, more = added(native, ours, cost, "begin", key="init_ns")
    report.add("cuInit, over native", more / 1e6, "ms", 1)
    _, more = added(native, ours, cost, "begin", key="first_ns")
    print(f"cuInit, context and first allocation, over native: {more / 1e6:.2f} ms")
    slow = Node(lab, folder / "slow-starts", modes={"init_ms": 50})
    walls = []
    for container in (slow.native(), slow.container(50)):
        began = time.monotonic()
        started = [container.start(cost, "begin") for _ in range(32)]
        for process in started:
            if process.wait() != 0:
                raise subprocess.CalledProcessError(process.returncode, "cost begin")
            process.communicate()
        walls.append((time.monotonic() - began) * 1000)
    print(f"32 processes with a cuInit of 50 ms, native: {walls[0]:.0f} ms")
    report.add("32 processes with a cuInit of 50 ms", walls[1], "ms", 400)


def idle(lab: Lab, folder: Path, report: Report, seconds: int) -> None:
    """What runs in a process that does nothing."""
    node, cost = Node(lab, folder / "idle"), lab.program("cost")
    tenant = node.container(50).start(cost, "idle", str(seconds))
    time.sleep(min(1, seconds / 2))
    threads = len(list(Path(f"/proc/{tenant.pid}/task").iterdir())) - 1
    spent = float(tenant.communicate()[0].split(":")[1].rstrip("}\n"))
    report.add("threads of the library", threads, "", 1)
    report.add(f"CPU of an idle process over {seconds} s", spent / seconds / 1e7, "%", 0.1)


def race(lab: Lab, folder: Path, report: Report, rounds: int) -> None:
    """Eight processes for three places, each round all at once."""
    container = Node(lab, folder / "race").container(mib=1000)
    answer = container.run(lab.program("race"), "8", "3", str(rounds), str(300 << 20))
    report.add(f"race: rounds of {rounds} with more grants than fit", answer["over"], "", 0)
    report.add(f"race: rounds of {rounds} with fewer", answer["under"], "", 0)
