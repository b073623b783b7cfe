"""How soon a container stops launching when it is told to, and how soon it goes on."""

import json
import statistics
import time
from pathlib import Path

from lab import Lab, Node
from report import Report

PAUSE_S = 0.05


def holds(lab: Lab, folder: Path, report: Report, rounds: int) -> None:
    """Suspends and resumes a container that launches without end."""
    container = Node(lab, folder / "holds").container(0)
    tenant = container.start(lab.program("cost"), "pauses", "3600")
    time.sleep(0.5)
    told: list[tuple[float, float]] = []
    for _ in range(rounds):
        began = time.monotonic()
        container.limit(0, suspended=True)
        time.sleep(PAUSE_S)
        told.append((began, time.monotonic()))
        container.limit(0)
        time.sleep(PAUSE_S)
    tenant.terminate()
    pauses = [[t / 1e9 for t in json.loads(line)] for line in tenant.communicate()[0].splitlines()]
    stops, wakes = [], []
    for began, ended in told:
        pause = next((p for p in pauses if p[0] < ended < p[1]), None)
        if pause is None:
            raise SystemExit("the container was told to stop and did not")
        stops.append((pause[0] - began) * 1000)
        wakes.append((pause[1] - ended) * 1000)
    print(
        f"suspend to last launch: median {statistics.median(stops):.2f} ms; "
        f"resume to first launch: median {statistics.median(wakes):.2f} ms"
    )
    report.add("suspend to last launch, median", statistics.median(stops), "ms", 10)
    report.add("resume to first launch, median", statistics.median(wakes), "ms", 10)
    report.add("resume to first launch, worst", max(wakes), "ms", 10)
