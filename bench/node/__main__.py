"""The device plugin beside its goals: how long kubelet waits for it, and what it costs.

Run: PYTHONPATH=. uv run --frozen python bench/node [calls] [pods] [health] [--pairs 5]
`calls` needs no cluster; the others need the one of `make install`.
"""

import argparse
import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The fake kubelet and API server of the component's own tests, and what the benches share.
sys.path += [str(ROOT / part) for part in ("components/device-plugin/tests", "bench", "bench/core")]

PARTS = ("calls", "pods", "health")


def main() -> None:
    """The table, and as the last line one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--starts", type=int, default=500, help="containers that `calls` starts")
    parser.add_argument("--rest-seconds", type=float, default=300, help="how long it rests")
    parser.add_argument("--pairs", type=int, default=5, help="interleaved pairs of `pods`")
    parser.add_argument("--faults", type=int, default=50, help="errors and repairs of `health`")
    options = parser.parse_args()
    chosen = options.parts or PARTS
    if unknown := sorted(set(chosen) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")

    import calls  # noqa: PLC0415 - their imports need the folders above
    import health  # noqa: PLC0415
    import pods  # noqa: PLC0415
    from report import Report  # noqa: PLC0415

    report = Report("node")
    if "calls" in chosen:
        asyncio.run(calls.measure(report, options.starts, options.rest_seconds))
    if "pods" in chosen:
        pods.measure(report, options.pairs)
    if "health" in chosen:
        health.measure(report, options.faults)
    report.end()


if __name__ == "__main__":
    main()
