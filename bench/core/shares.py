"""How true shares of GPU time are, in real time, by the fake card's own ledger of busy time."""

import json
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import Container, Lab, Node
from report import Report

LIMITS = (10, 25, 50, 75)
MODES: dict[str, dict[str, int]] = {
    "plain": {},
    "noise": {"event_noise_percent": 10},
    "slices": {"slice_us": 2000},
    "overlap": {"overlap": 1},
    "drift": {"drift_ms": 1000},
}
SHAPES = (
    *("wave", "small-waves", "many-waves", "tiny", "single"),
    *("mixed", "graph", "cooperative", "synced", "bursty"),
)
LONG = {"many-waves": 0.125, "single": 0.5}
"""Shapes of few long kernels, in seconds: measured from a start to a later start."""
PAIRS = (("wave", "wave"), ("small-waves", "small-waves"), ("mixed", "mixed"), ("tiny", "wave"))
EVERY_MS = 20
BURST_S, IDLE_S, SAVED_S = 0.050, 0.200, 0.050
"""Of the bursty shape: work, nothing; and what the limiter lets a container save up at 100 %."""


@dataclass(frozen=True, slots=True)
class Series:
    """Busy seconds of some processes against time, from their first work on."""

    points: tuple[tuple[float, float], ...]

    def share(self, begin_s: float, end_s: float) -> float:
        """Percent of the time between two moments."""
        inside = [p for p in self.points if begin_s <= p[0] <= end_s]
        (t0, b0), (t1, b1) = inside[0], inside[-1]
        return 100 * (b1 - b0) / (t1 - t0)

    def renewals(self) -> float:
        """The same from the first start of a kernel to the last."""
        starts = [
            (t1 - (b1 - b0), b0)
            for (_, b), (t0, b0), (t1, b1) in zip(
                self.points, self.points[1:], self.points[2:], strict=False
            )
            if b == b0 < b1 and b1 - b0 < t1 - t0
        ]
        if len(starts) < 2:
            return self.share(0, self.points[-1][0])
        return 100 * (starts[-1][1] - starts[0][1]) / (starts[-1][0] - starts[0][0])


def series(output: str, pids: Iterable[int]) -> Series:
    """What `fakegpu busy` printed, of some processes."""
    names = [str(pid) for pid in pids]
    lines = [json.loads(line) for line in output.splitlines()]
    busy = [sum(line["processes"].get(name, 0) for name in names) / 1e9 for line in lines]
    times = [line["at_ns"] / 1e9 for line in lines]
    first = next((i for i, value in enumerate(busy) if value > 0), 0)
    return Series(
        tuple((t - times[first], b) for t, b in zip(times[first:], busy[first:], strict=True))
    )


def run(
    lab: Lab, tenants: Sequence[tuple[Container, str]], seconds: float, streams: int = 1
) -> list[Series]:
    """Lets tenants compute at once; each one's busy time."""
    cards = {container.card: container.node for container, _ in tenants}
    count = int((seconds + 1.5) * 1000 / EVERY_MS)
    watches = {card: node.watch(card, EVERY_MS, count) for card, node in cards.items()}
    started: list[subprocess.Popen[str]] = []
    for container, shape in tenants:
        started.append(container.start(lab.load, shape, str(seconds + 5), str(streams)))
    outputs = {card: watch.communicate()[0] for card, watch in watches.items()}
    for process in started:
        process.kill()
        process.communicate()
    return [
        series(outputs[container.card], [process.pid])
        for (container, _), process in zip(tenants, started, strict=True)
    ]


def wanted(shape: str, limit: int, mode: str) -> tuple[float, float]:
    """The shares, least and most, that a token bucket of this limit leaves to a shape.

    A burst takes half as long where its streams run side by side, which they do as far as the gate
    lets them through together, and in the mean half as much again where clocks drift.
    """
    if shape != "bursty":
        return limit, limit
    least, most = {"overlap": (0.5, 1.0), "drift": (1.5, 1.5)}.get(mode, (1.0, 1.0))
    return _bursts(limit / 100, least * BURST_S), _bursts(limit / 100, most * BURST_S)


def _bursts(rate: float, burst_s: float) -> float:
    work = max(burst_s, (burst_s - min(SAVED_S, IDLE_S) * rate) / rate)
    return 100 * burst_s / (work + IDLE_S)


def matrix(lab: Lab, folder: Path, report: Report, seconds: float) -> None:
    """Every limit with every shape in every mode of the card."""
    errors: list[tuple[float, str]] = []
    unsettled: list[tuple[float, str]] = []
    for mode, modes in MODES.items():
        for shape in SHAPES:
            node = Node(lab, folder / f"{mode}-{shape}", len(LIMITS), modes)
            tenants = [(node.container(limit, card), shape) for card, limit in enumerate(LIMITS)]
            length = seconds * 2 if shape == "single" else seconds
            got = run(lab, tenants, length + 1, 2 if mode == "overlap" else 1)
            row = []
            for limit, one in zip(LIMITS, got, strict=True):
                share = one.renewals() if shape in LONG else one.share(1, length + 1)
                row.append(share)
                name = f"{mode}/{shape}/{limit}"
                least, most = wanted(shape, limit, mode)
                errors.append((max(least - share, share - most, 0), name))
                if shape not in LONG and shape != "bursty":
                    unsettled.append((abs(one.share(1, 2) - limit), name))
            print(f"{mode:8s} {shape:12s}" + "".join(f"{share:8.1f}" for share in row), flush=True)
    worst(report, "share of a container, error", errors, 3)
    worst(report, "settled: error in the 2nd second", unsettled, 5)


def worst(report: Report, name: str, errors: list[tuple[float, str]], goal: float) -> None:
    """The worst of many, how many pass the goal, and which do not."""
    errors.sort(reverse=True)
    print(f"{name}: median {statistics.median(e for e, _ in errors):.2f} points")
    for error, where in errors:
        if error > goal:
            print(f"  {where}: {error:.1f} points")
    report.add(f"{name}, worst of {len(errors)} ({errors[0][1]})", errors[0][0], "points", goal)
    passed = 100 * sum(error <= goal for error, _ in errors) / len(errors)
    report.add(f"{name} within {goal:g} points", passed, "%", 100, at_least=True)


def control(lab: Lab, folder: Path, report: Report) -> None:
    """Without the limiter the same measure must fail: every shape but the bursty takes the card."""
    shapes = [shape for shape in SHAPES if shape != "bursty"]
    least = 100.0
    for shape in shapes:
        node = Node(lab, folder / f"off-{shape}")
        (one,) = run(lab, [(node.container(0), shape)], 1.5)
        least = min(least, one.share(0.2, 1.5))
    report.add("limiter off: least share of a shape", least, "%", 78 + 1e-9, at_least=True)


def two_containers(lab: Lab, folder: Path, report: Report, seconds: float) -> None:
    """30 and 70 percent of one card, whose processes queue or take turns."""
    errors = []
    for mode in ("plain", "slices"):
        for left, right in PAIRS:
            node = Node(lab, folder / f"pair-{mode}-{left}-{right}", modes=MODES[mode])
            tenants = [(node.container(30), left), (node.container(70), right)]
            small, large = (one.share(1, seconds) for one in run(lab, tenants, seconds))
            print(f"30/70 {mode:7s} {left}, {right}: {small:.1f} / {large:.1f}", flush=True)
            errors.append((max(abs(small - 30), abs(large - 70)), f"{mode}/{left}, {right}"))
    worst(report, "30/70, error of either", errors, 5)


def fairness(lab: Lab, folder: Path, report: Report, seconds: float) -> None:
    """Processes of one container."""
    for count in (2, 4, 8):
        container = Node(lab, folder / f"fair-{count}").container(50)
        got = [one.share(1, seconds) for one in run(lab, [(container, "wave")] * count, seconds)]
        jain = sum(got) ** 2 / (count * sum(share * share for share in got))
        print(f"{count} processes of a container with 50 %: {sum(got):.1f} %")
        name = f"{count} processes of a container, error of their sum"
        report.add(name, abs(sum(got) - 50), "points", 3)
        report.add(f"Jain index of {count} processes of a container", jain, "", 0.97, at_least=True)
