"""The limiter's cost and accuracy on the fake driver: native beside ours.

Run: uv run --frozen python bench/core [part ...]; the parts are the names in PARTS. Real time and
real threads: on a machine that does other work the figures of accuracy are its scheduler's too.
"""

import os
import sys
import tempfile
from pathlib import Path

import costs
import holds
import lab
import shares
from report import Report

SECONDS = float(os.environ.get("SECONDS", "8"))
"""Of each measurement of accuracy."""

PARTS = {
    "launches": costs.launches,
    "memory": costs.memory,
    "syscalls": costs.syscalls,
    "starts": costs.starts,
    "idle": lambda *where: costs.idle(*where, 60),
    "race": lambda *where: costs.race(*where, 10_000),
    "holds": lambda *where: holds.holds(*where, 50),
    "control": shares.control,
    "pairs": lambda *where: shares.two_containers(*where, SECONDS),
    "fairness": lambda *where: shares.fairness(*where, SECONDS),
    "matrix": lambda *where: shares.matrix(*where, SECONDS),
}


def main() -> None:
    """The table, and as the last line one JSON object."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="bench-core-") as name:
        built = lab.build(Path(name))
        for part in sys.argv[1:] or PARTS:
            PARTS[part](built, Path(name), report)
    report.end()


if __name__ == "__main__":
    main()
