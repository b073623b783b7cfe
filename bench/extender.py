"""All of the extender's figures that need no cluster; the last line is one JSON object.

Run: uv run --frozen python bench/extender.py
"""

import json

import filter as filter_time
import restart


def main() -> None:
    """Measure /filter, then a restart."""
    goals = filter_time.goals([1000, 5000]) + restart.goals(*restart.DEFAULTS)
    print(json.dumps({"bench": "extender", "goals": goals}))


if __name__ == "__main__":
    main()
