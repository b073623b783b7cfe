"""What is told about the cards."""

from mig_world import GPU, World, spot
from prometheus_client import CollectorRegistry, generate_latest

from hami_mig_manager.metrics import Metrics


def told(registry):
    """Every series with its value."""
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def world_with_metrics():
    """A node whose manager tells."""
    world, registry = World(), CollectorRegistry()
    metrics = world.heard = Metrics(registry)
    return world, registry, metrics


def test_before_the_first_look_nothing_is_told_of_the_cards():
    """Absent rather than 0."""
    _, registry, _ = world_with_metrics()
    assert not [name for name in told(registry) if "instances{" in name or "waiting" in name]


def test_instances_by_owner_and_free_places():
    """One that a pod has, one that nobody needs, one by hand; places as the scheduler counts."""
    world, registry, _ = world_with_metrics()
    world.by_hand(spot("3g.20gb", 4))
    world.bind("a", spot("1g.5gb", 0))
    world.bind("b", spot("1g.5gb", 1))
    manager = world.manager()
    manager.settle()
    world.gone("b")
    world.now += 9
    manager.settle()
    found = told(registry)
    one = f'device_uuid="{GPU}"'
    name = "hami_mig_manager_instances"
    assert {k: v for k, v in found.items() if k.startswith(f"{name}{{")} == {
        f'{name}{{{one},owner="pod",profile="1g.5gb"}}': 1,
        f'{name}{{{one},owner="unused",profile="1g.5gb"}}': 1,
        f'{name}{{{one},owner="hand",profile="3g.20gb"}}': 1,
    }
    ages = [v for k, v in found.items() if k.startswith("hami_mig_manager_instance_age_seconds")]
    assert ages == [9, 9]
    free = "hami_mig_manager_free_placements"
    assert found[f'{free}{{{one},profile="1g.5gb"}}'] == 3
    assert found[f'{free}{{{one},profile="2g.10gb"}}'] == 1
    assert found[f'{free}{{{one},profile="7g.40gb"}}'] == 0
    assert found[f'hami_mig_manager_blocked_placements{{{one},reason="MadeByHand"}}'] == 1
    assert found["hami_mig_manager_waiting_pods"] == 0


def test_what_was_done_is_counted():
    """Made, destroyed, failed."""
    world, registry, _ = world_with_metrics()
    world.bind("a", spot("1g.5gb", 0))
    world.faults["create"] = [10]
    manager = world.manager()
    world.now = manager.settle()
    manager.settle()
    world.gone("a")
    manager.settle()
    world.now += 30
    manager.settle()
    found = told(registry)
    assert found["hami_mig_manager_creations_total"] == 1
    assert found["hami_mig_manager_destructions_total"] == 1
    assert found['hami_mig_manager_failures_total{reason="DriverError",step="create"}'] == 1
    assert found["hami_mig_manager_creation_duration_seconds_count"] == 1
