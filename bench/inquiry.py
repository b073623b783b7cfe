"""What people ask of a large cluster's extender, and how long kube-scheduler waits meanwhile.

Run: uv run --frozen python bench/inquiry.py [nodes]
"""

import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
from filter import NoBinds, caller, filled, shaped
from herd import Json, goal
from msgspec import convert

from hami_extender import state
from hami_extender.app import create_app
from hami_extender.attempts import Attempts
from hami_extender.explain import Explainer
from hami_extender.flights import Flights
from hami_extender.inquiry import MAX_NODES
from hami_extender.preempt import Preemptor
from hami_extender.selection import Policies, Selector
from hami_extender.snapshot import Snapshot
from hami_extender.survey import Survey
from hamikit.cluster import ApiError
from hamikit.informer import Change
from hamikit.objects import Pod

GOAL_STALL_S = 1.0
WAITING = 99
PAUSE_S = 0.02


class NoPods:
    """An API server without pods."""

    def get(self, path: str, _kind: type[Pod]) -> Pod:
        """There is none."""
        raise ApiError(404, "NotFound", path)


def questions(snapshot: Snapshot) -> Iterator[tuple[str, Callable[[], object]]]:
    """What people may ask."""
    flights = Flights(snapshot, NoPods())
    survey = Survey(snapshot, Policies())
    explainer = Explainer(snapshot, NoPods(), survey, Attempts(snapshot))
    snapshot.on_pod(Change(None, convert(shaped(WAITING, "two-full", 7), Pod)))
    yield "/state", lambda: state.as_json(state.take(snapshot, flights, lambda: ""))
    yield "/explain of one pod", lambda: explainer.pod("default", f"p{WAITING}")
    yield (
        f"/explain of one pod, {MAX_NODES} nodes in full",
        lambda: explainer.pod("default", f"p{WAITING}", MAX_NODES),
    )
    yield "/explain of all that wait", explainer.waiting


def beside(ask: Callable[[], object], filter_: Callable[[], float]) -> tuple[float, list[float]]:
    """Seconds of an answer with its encoding, and of the filters answered meanwhile."""
    done = threading.Event()
    took: list[float] = []

    def person() -> None:
        start = time.perf_counter()
        msgspec.json.encode(ask())
        took.append(time.perf_counter() - start)
        done.set()

    thread = threading.Thread(target=person)
    thread.start()
    filters = [filter_()]
    while not done.wait(PAUSE_S):
        filters.append(filter_())
    thread.join()
    return took[0], filters


def goals(count: int) -> list[Json]:
    """Measure; prints a table."""
    snapshot = filled(count, random.Random(count))
    selector = Selector(snapshot, Policies(), missing=lambda: "")
    preemptor = Preemptor(snapshot, "spread", missing=lambda: "")
    call = caller(create_app(selector, NoBinds(), preemptor))
    names = list(snapshot.ledger.nodes)
    body = json.dumps({"Pod": shaped(1, "slice", 0), "NodeNames": names}).encode()
    call(body)
    found = []
    print(f"{count} nodes, what people ask, and the filters meanwhile")
    for name, ask in questions(snapshot):
        took, filters = beside(ask, lambda: call(body)[0] / 1000)
        print(
            f"  {name}: {took:.2f} s; {len(filters)} filters meanwhile, "
            f"p50 {1000 * statistics.median(filters):.1f} ms, worst {1000 * max(filters):.0f} ms"
        )
        found += [
            goal(f"{name}, {count} nodes", took, "s", None),
            goal(f"longest /filter beside {name}, {count} nodes", max(filters), "s", GOAL_STALL_S),
        ]
    return found


def main() -> None:
    """Print a table, then one JSON object."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    print(json.dumps({"bench": "extender inquiry", "goals": goals(count)}))


if __name__ == "__main__":
    main()
