"""The groups of measurements: cost, memory, compute, fairness, starts, programs, and the names."""

import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pynvml
from tenants import CORE, MIB, Bench, Limits, answer, per_second

from hamikit.region import OverheadPolicy

QUICK = ("W1", "W5", "W7")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `goal` None: it is told, nothing is asked of it."""

    group: str
    name: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is as good as asked for."""
        if self.goal is None:
            return True
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def interval(values: list[float]) -> tuple[float, float, float]:
    """Median and the 95 % bootstrap interval around it."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(1000))
    return statistics.median(values), medians[25], medians[974]


def cost(bench: Bench, *, quick: bool) -> Iterator[Row]:
    """A: each kind of work native, unlimited, with a memory limit, with 99 % of the compute."""
    goals = {"W1": 1.5, "W2": 3.0, "W3": 3.0, "W5": 0.5, "W6": 0.5, "W7": 0.5, "W8": 0.5}
    kinds = QUICK if quick else ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8")
    modes = {
        "native": None,
        "unlimited": bench.container(Limits()),
        "memory limit": bench.container(Limits(memory_mib=2000)),
        "99 % of compute": bench.container(Limits(memory_mib=2000, cores=99)),
    }
    for kind in kinds:
        rates: dict[str, list[float]] = {mode: [] for mode in modes}
        for _ in range(bench.repetitions):
            for mode in random.sample(list(modes), len(modes)):
                rates[mode].append(bench.rate(modes[mode], kind, bench.seconds / 4))
        native = statistics.median(rates.pop("native"))
        for mode, values in rates.items():
            lost, low, high = interval([100 * (1 - value / native) for value in values])
            yield Row(
                "A", f"{kind} {mode} [{low:.2f}, {high:.2f}]", lost, "% lost", goals.get(kind)
            )


def memory(bench: Bench, *, quick: bool) -> Iterator[Row]:
    """B: filled with each kind of memory, what is granted, and what NVML says outside."""
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByUUID(bench.uuid)
    for limit in (512,) if quick else (1024, 4096, 16384, 40960):
        for kind in ("linear", "pool", "vmm", "managed", "array"):
            before = pynvml.nvmlDeviceGetMemoryInfo(card).used
            container = bench.container(Limits(limit, overhead=OverheadPolicy.REPORT))
            process = bench.start(container, "work", "fill", kind)
            assert process.stdout is not None
            said = process.stdout.readline()
            taken = pynvml.nvmlDeviceGetMemoryInfo(card).used - before
            answer_line = said.split(",")[0]
            granted = int(answer_line.split(":")[1]) / MIB
            process.communicate()
            yield Row("B", f"{limit} MiB of {kind}: not granted", limit - granted, "MiB", 32)
            yield Row("B", f"{limit} MiB of {kind}: on the card", taken / MIB, "MiB")


def shares(bench: Bench, *, quick: bool) -> Iterator[Row]:
    """C: the share of the native rate that a limit leaves."""
    kinds = ("W5",) if quick else ("W5", "W6", "W7", "W8", "W10", "W12")
    for kind in kinds:
        native = bench.rate(None, kind)
        for limit in (50,) if quick else (10, 25, 50, 75):
            achieved = 100 * bench.rate(bench.container(Limits(cores=limit)), kind) / native
            yield Row(
                "C", f"{kind} at {limit} %: {achieved:.1f} %", abs(achieved - limit), "points", 3
            )


def _together(bench: Bench, containers: list[Path], kind: str) -> list[float]:
    running = [
        bench.start(container, "work", *bench.work(kind, bench.seconds)) for container in containers
    ]
    return [per_second(answer(process)) for process in running]


def fairness(bench: Bench, *, quick: bool) -> Iterator[Row]:
    """D: equal tenants, processes of one container, and pairs of unequal ones."""
    for kind in ("W5",) if quick else ("W5", "W8"):
        for count in (2,) if quick else (2, 4, 8):
            limits = Limits(cores=100 // count)
            for name, containers in (
                ("containers", [bench.container(limits) for _ in range(count)]),
                ("processes of one", [bench.container(Limits(cores=50))] * count),
            ):
                rates = _together(bench, containers, kind)
                jain = sum(rates) ** 2 / (count * sum(rate * rate for rate in rates))
                yield Row("D", f"{kind}, {count} {name}: Jain", jain, "", 0.97, at_least=True)
        for small in (30,) if quick else (30, 10):
            pair = [bench.container(Limits(cores=cores)) for cores in (small, 100 - small)]
            rates = _together(bench, pair, kind)
            share = 100 * rates[0] / sum(rates)
            yield Row(
                "D",
                f"{kind}, {small}/{100 - small}: {share:.1f} %",
                abs(share - small),
                "points",
                5,
            )


def starts(bench: Bench, *, quick: bool) -> Iterator[Row]:
    """E: many processes start at once; what is added to the median start."""
    container = bench.container(Limits(memory_mib=2000, cores=50))
    for count in (1, 4) if quick else (1, 8, 32):
        took: dict[bool, list[float]] = {}
        for limited in (False, True):
            where = container if limited else None
            running = [bench.start(where, "work", "init") for _ in range(count)]
            took[limited] = [float(answer(process)["ms"]) for process in running]
        added = statistics.median(took[True]) - statistics.median(took[False])
        yield Row("E", f"{count} starts at once: added", added, "ms", 1)


def programs(bench: Bench, *, quick: bool) -> Iterator[Row]:
    """F: the programs of hami-core's tests, each found in each way; 1 where one ended well."""
    for source in sorted((CORE / "tests" / "programs").glob("*.c")):
        if source.stem == "traced" or (quick and source.stem not in ("slice", "pool")):
            continue
        for way in ("LINKED", "BY_NAME", "BY_PROC_ADDRESS", "PER_THREAD"):
            container = bench.container(Limits(memory_mib=960, cores=50))
            start = time.monotonic()
            process = bench.start(container, f"{source.stem}.{way}")
            process.communicate()
            took = time.monotonic() - start
            ended = float(process.returncode == 0)
            yield Row(
                "F", f"{source.stem} {way.lower()} ({took:.1f} s)", ended, "", 1, at_least=True
            )


def names(bench: Bench, cuda: int) -> dict[str, int]:
    """How cuGetProcAddress and dlsym compare for the table's names up to a version of CUDA."""
    questions = []
    for line in (CORE / "src" / "hooks.def").read_text().splitlines():
        _, symbol, base, version, stream = (line.split() + [""] * 5)[:5]
        if line.startswith("cuda ") and int(version) <= cuda:
            questions.append(f"{base} {symbol} {version} {2 if stream == 'thread' else 0}")
    process = bench.start(None, "names")
    text, _ = process.communicate("\n".join(questions) + "\n")
    if process.returncode != 0:
        raise SystemExit(text)
    counts: dict[str, int] = {}
    for symbol, verdict in (line.split() for line in text.splitlines()):
        counts[verdict] = counts.get(verdict, 0) + 1
        if verdict != "same":
            print(f"{symbol:40s} {verdict}")
    return counts


GROUPS = {"A": cost, "B": memory, "C": shares, "D": fairness, "E": starts, "F": programs}
"""By the letters of our plan of tests."""
