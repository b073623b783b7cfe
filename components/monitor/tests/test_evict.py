"""Evictions: few, by the API's own rules, and only where asked for."""

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from hami_monitor.audit import Finding, Kind, Place
from hami_monitor.evict import PAUSE_S, EvictionCollector, Evictor
from hami_monitor.tracker import News
from hamikit.cluster import ApiError, Unreachable
from hamikit.objects import Metadata, Pod


def pod(name, *, going=False):
    """A pod; `going` is being deleted."""
    return Pod(Metadata(name, "ns", f"uid-{name}", deletion_timestamp="now" if going else None))


def finding(name, kind=Kind.OVER_USE):
    """A finding about a pod."""
    return Finding(Place(kind, "GPU-a", f"uid-{name}", "ns", name, "main"), 1, "text")


class Server:
    """Takes evictions, or fails them."""

    def __init__(self, fault=None):
        self.fault, self.asked = fault, []

    def create(self, path, body):
        self.asked.append((path, body))
        if self.fault:
            raise self.fault


def evictor(server, clock, **more):
    """One that acts on over-use."""
    return Evictor(server, [Kind.OVER_USE], now=lambda: clock.now, **more)


@pytest.fixture
def clock():
    """A clock that stands still until told."""
    return SimpleNamespace(now=0.0)


def hear(acting, *findings, pods=("a", "b")):
    """Tell what stands, and wait for what comes of it."""
    known = {f"uid-{p}": pod(p) for p in pods}
    acting.hear(News(standing=findings), known)


def test_one_a_minute_and_none_before_the_first(clock):
    """So a mistake of ours, or a crash loop, drains no node."""
    server = Server()
    acting = evictor(server, clock)
    hear(acting, finding("a"), finding("b"))
    clock.now = PAUSE_S
    hear(acting, finding("a"), finding("b"))
    clock.now += PAUSE_S - 1
    hear(acting, finding("b"))
    clock.now += 1
    hear(acting, finding("b"))
    acting.close()
    assert [path for path, _ in server.asked] == [
        "/api/v1/namespaces/ns/pods/a/eviction",
        "/api/v1/namespaces/ns/pods/b/eviction",
    ]


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_eviction_is_of_this_pod_and_dry_by_default(clock, dry_run):
    """By UID: a pod of the same name that came since stays."""
    server = Server()
    acting = evictor(server, clock) if dry_run else evictor(server, clock, dry_run=False)
    clock.now = PAUSE_S
    hear(acting, finding("a"))
    acting.close()
    ((_, body),) = server.asked
    assert (body["kind"], body["apiVersion"]) == ("Eviction", "policy/v1")
    assert body["metadata"] == {"name": "a", "namespace": "ns"}
    assert body["deleteOptions"]["preconditions"] == {"uid": "uid-a"}
    assert body["deleteOptions"].get("dryRun") == (["All"] if dry_run else None)
    outcome = "dry_run" if dry_run else "evicted"
    assert acting.outcomes() == {("over_use", outcome): 1}


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (ApiError(429, "TooManyRequests", "disruption budget"), "refused"),
        (ApiError(403, "Forbidden", "no"), "failed"),
        (Unreachable("gone"), "failed"),
    ],
)
def test_what_the_api_server_says_is_counted(clock, fault, outcome):
    """A budget that forbids is respected."""
    acting = evictor(Server(fault), clock)
    clock.now = PAUSE_S
    hear(acting, finding("a"))
    acting.close()
    registry = CollectorRegistry()
    registry.register(EvictionCollector(acting, "node-1"))
    labels = f'kind="over_use",node="node-1",outcome="{outcome}",zone="vGPU"'
    assert f"hami_audit_evictions_total{{{labels}}} 1.0" in generate_latest(registry).decode()


def test_other_kinds_and_pods_that_go_anyway_are_left(clock):
    """And what belongs to no pod; none of them uses up the minute."""
    server = Server()
    acting = evictor(server, clock)
    clock.now = PAUSE_S
    strange = Finding(Place(Kind.UNKNOWN_POD, "GPU-a", "uid-x"), 1, "text")
    hear(acting, finding("a", Kind.NO_LIMITER), finding("gone"), strange)
    acting.hear(News(standing=(finding("a"),)), {"uid-a": pod("a", going=True)})
    hear(acting, finding("b"))
    acting.close()
    assert [path for path, _ in server.asked] == ["/api/v1/namespaces/ns/pods/b/eviction"]


def test_without_kinds_nothing_happens(clock):
    """The default."""
    server = Server()
    acting = Evictor(server, (), dry_run=False, now=lambda: clock.now)
    clock.now = PAUSE_S
    hear(acting, finding("a"))
    acting.close()
    assert server.asked == []
