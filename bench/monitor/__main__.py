"""The monitor beside its goals. Run: uv run --frozen python bench/monitor [seconds]."""

import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
# What the benches share.
sys.path += [str(BENCH), str(BENCH / "core")]

SECONDS = 45.0

if __name__ == "__main__":
    import scrapes

    scrapes.run(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
