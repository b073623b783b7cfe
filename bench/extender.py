"""All of the extender's figures; the last line is one JSON object.

Beside the null extender and kube-scheduler they take about 40 minutes, with one pair of runs 15.
Run, with PYTHONPATH=.: python bench/extender.py [--pairs 5] [--nodes 1000 5000] [--pods 2000]
"""

import argparse
import json

import drain
import filter as filter_time
import lonely
import packing
import restart


def main() -> None:
    """Measure /filter, a restart, then whole drains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1000, 5000])
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    goals = filter_time.goals(options.nodes) + restart.goals(*restart.DEFAULTS)
    goals += packing.goals(*packing.DEFAULTS)
    goals += lonely.goals(max(options.nodes), *lonely.DEFAULTS)
    goals += drain.goals(options.nodes, options.pods, options.pairs)
    print(json.dumps({"bench": "extender", "goals": goals}))


if __name__ == "__main__":
    main()
