"""MIG beside its goals: how often no instance is found, how much later a container starts.

Run: PYTHONPATH=. uv run --frozen python bench/mig [places] [starts] [--rounds 2]
`places` needs no cluster; `starts` needs the one of `make install`.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What the benches share.
sys.path += [str(ROOT / part) for part in ("bench/node", "bench", "bench/core")]

PARTS = ("places", "starts")


def main() -> None:
    """The tables, and as the last line one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seeds", type=int, default=5, help="traces of each model and load")
    parser.add_argument("--rounds", type=int, default=2, help="how often the cards are filled")
    options = parser.parse_args()
    chosen = options.parts or PARTS
    if unknown := sorted(set(chosen) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")

    import starts  # noqa: PLC0415 - their imports need the folders above
    import traces  # noqa: PLC0415
    from report import Report  # noqa: PLC0415

    report = Report("mig")
    if "places" in chosen:
        traces.measure(report, options.seeds)
    if "starts" in chosen:
        starts.measure(report, options.rounds)
    report.end()


if __name__ == "__main__":
    main()
