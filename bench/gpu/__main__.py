"""The limiter on a real card, native beside ours: cost, memory, shares, fairness, starts, programs.

Needs an NVIDIA driver, gcc and 2 GiB of free card memory; no CUDA toolkit. The last line is JSON.
Run: uv run --frozen python bench/gpu [--groups ABCDEF] [--seconds 20] [--write docs/benchmarks.md]
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from groups import GROUPS, Row, names
from tenants import Bench, build

HEADING = "## hami-core on a card"


def section(card: dict[str, Any], compared: dict[str, int], rows: list[Row]) -> str:
    """What docs/benchmarks.md gets."""
    day = datetime.now(UTC).date().isoformat()
    lines = [
        f"{HEADING}, {day}",
        "",
        f"`make bench-gpu` on {card['name']}, CUDA {card['cuda']}; native beside ours. "
        "cuGetProcAddress against dlsym: "
        + ", ".join(f"{count} {verdict}" for verdict, count in sorted(compared.items()))
        + ".",
        "",
        "| group | what | figure | goal |",
        "|---|---|---|---|",
    ]
    for row in rows:
        goal = "" if row.goal is None else f"{'>=' if row.at_least else '<='} {row.goal:g}"
        missed = "" if row.met else ", not met"
        lines.append(f"| {row.group} | {row.name} | {row.value:.2f} {row.unit} | {goal}{missed} |")
    return "\n".join(lines) + "\n"


def put(path: Path, text: str) -> None:
    """Replaces our section of a page, or adds it."""
    page = path.read_text()
    before, found, after = page.partition(HEADING)
    rest = after.partition("\n## ")
    tail = f"\n## {rest[2]}" if rest[1] else ""
    path.write_text((before if found else page.rstrip() + "\n\n") + text + tail)


def main() -> None:
    """Runs the groups one after the other; a table for people and a line of JSON."""
    parser = argparse.ArgumentParser(description="hami-core on a real card")
    parser.add_argument("--groups", default="".join(GROUPS), help="which of ABCDEF")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--repetitions", type=int, default=10, help="of each of group A")
    parser.add_argument("--quick", action="store_true", help="one of each kind, to see it run")
    parser.add_argument("--write", type=Path, help="the page whose section is to be written")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as name:
        bench = Bench(build(Path(name)), options.seconds, options.repetitions)
        card = bench.run(None, "card")
        bench.uuid = card["uuid"]
        print(f"{card['name']}, CUDA {card['cuda']}")
        compared = names(bench, card["cuda"])
        bench.loops_per_ms = float(bench.run(None, "calibrate")["loops_per_ms"])
        for letter in options.groups:
            for row in GROUPS[letter](bench, quick=options.quick):
                rows.append(row)
                missed = "" if row.met else "  NOT MET"
                print(
                    f"{row.group} {row.name:60s} {row.value:10.2f} {row.unit}{missed}", flush=True
                )
    if options.write:
        put(options.write, section(card, compared, rows))
    goals = [{**asdict(row), "met": row.met} for row in rows if row.goal is not None]
    print(json.dumps({"bench": "gpu", "card": card, "names": compared, "goals": goals}))


if __name__ == "__main__":
    main()
