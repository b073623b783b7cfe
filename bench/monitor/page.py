"""Server time of the extender's status page at 1,000 nodes, beside a page that shows nothing."""

import gc
import random
import statistics
import time
from collections.abc import Callable

import falcon.testing
from filter import filled, shaped
from msgspec import convert

from hami_extender.access import Person
from hami_extender.attempts import Attempts
from hami_extender.explain import Explainer
from hami_extender.overview import Overviews
from hami_extender.page import COOKIE, PATH, StatusPage
from hami_extender.selection import Policies, Selector
from hami_extender.snapshot import Snapshot
from hami_extender.survey import Survey
from hami_extender.wire import FilterArgs
from hamikit.cluster import ApiError
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.objects import Pod

NODES, WAITING, KINDS, ROUNDS = 1000, 200, 10, 20
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Anyone:
    """The API server's answers, which are not the page's time."""

    def who(self, _authorization: str | None) -> Person:
        """Somebody."""
        return Person("anyone", {})

    def may_see_pod(self, _person: Person, _namespace: str, _name: str) -> bool:
        """He may."""
        return True

    def may(self, _person: Person, _method: str, _path: str) -> bool:
        """He may."""
        return True

    def get(self, path: str, _kind: type[Pod]) -> Pod:
        """There is none that the view does not show."""
        raise ApiError(404, "NotFound", path)


def asked(snapshot: Snapshot) -> Callable[[int], float]:
    """Milliseconds of a page of nodes and pods."""
    anyone = Anyone()
    survey = Survey(snapshot, Policies())
    explainer = Explainer(snapshot, anyone, survey, Attempts(snapshot))
    app = falcon.App()
    app.add_route(PATH, StatusPage(Overviews(snapshot, explainer, str), anyone))
    client = falcon.testing.TestClient(app)
    entered = client.simulate_post(PATH, body="token=t", headers=FORM)
    signed_in = {COOKIE: entered.cookies[COOKIE].value}

    def ask(number: int) -> float:
        query = {"nodes": number, "pods": number % 10}
        start = time.perf_counter()
        page = client.simulate_get(PATH, cookies=signed_in, params=query)
        took = 1000 * (time.perf_counter() - start)
        if page.status_code != 200:
            raise SystemExit(f"the status page answered {page.status}")
        return took

    return ask


def full_cluster() -> Snapshot:
    """Every card shared by five pods; kube-scheduler has asked about each pod that waits."""
    snapshot = filled(NODES, random.Random(NODES))
    selector = Selector(snapshot, Policies(), missing=str)
    names = list(snapshot.ledger.nodes)
    for number in range(WAITING):
        pod = convert(shaped(number, "two-full", number % KINDS), Pod)
        snapshot.on_pod(Change(None, pod))
        selector.filter(FilterArgs(pod, names))
    # As the extender does once its first lists are there.
    gc.collect()
    gc.freeze()
    return snapshot


def server_ms() -> float:
    """The slowest page of a full cluster, beside one of an empty cluster."""
    empty, page = asked(Snapshot(NVIDIA)), asked(full_cluster())
    took = [(empty(number), page(number)) for number in range(ROUNDS)]
    worst = max(ms for _, ms in took)
    base, p50 = (statistics.median(column) for column in zip(*took, strict=True))
    print(
        f"status page of {NODES} nodes: p50 {p50:.1f} ms, worst {worst:.1f} ms; empty {base:.1f} ms"
    )
    return worst
