"""The extender's own standing."""

from types import SimpleNamespace

from extender_cluster import one_card
from prometheus_client import CollectorRegistry

from hami_extender.gauges import OwnCollector


def test_own_standing():
    """Binds by outcome, waits for locks, waiting pods, and how old the view is."""
    world, pod = one_card()
    world.cluster.add("other")
    world.cluster.deliver_all(world.snapshot)
    registry = CollectorRegistry()
    contacts = {"pods": SimpleNamespace(last_contact=3.0)}
    world.locks.waiting = 2
    registry.register(
        OwnCollector(world.snapshot, world.flights, world.locks, contacts, lambda: 10.0)
    )
    get = registry.get_sample_value
    assert get("hami_extender_waiting_pods") == 2
    assert get("hami_extender_binds", {"state": "written"}) == 0
    assert world.bind(pod) == ""
    assert get("hami_extender_binds", {"state": "written"}) == 1
    assert get("hami_extender_binds", {"state": "sending"}) == 0
    assert get("hami_extender_waiting_pods") == 1
    assert get("hami_extender_lock_waiters") == 2
    assert get("hami_extender_cache_age_seconds", {"objects": "pods"}) == 7
