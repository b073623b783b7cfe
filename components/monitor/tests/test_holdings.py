"""What the audit takes from a container's files."""

from dataclasses import replace

import pytest
from msgspec import structs

from hami_monitor.attribution import Attributed
from hami_monitor.audit import MIB, Holding
from hami_monitor.holdings import SLACK_BYTES, Holdings, own_holding
from hami_monitor.occupants import Occupant
from hami_monitor.processes import Process
from hamikit.names import POD_DEVICES_ALLOCATED
from hamikit.objects import Resources
from hamikit.region import (
    Control,
    ControlDevice,
    ControlFlag,
    OverheadPolicy,
    read_control,
    read_usage,
    update_control,
)

GRANT = {POD_DEVICES_ALLOCATED: "GPU-a,NVIDIA,3000,30:;"}


def of(root, pod, container="main"):
    """What the container of a process holds."""
    uid = pod.metadata.uid
    one = Attributed("GPU-a", Occupant(1), Process(1, 1, 1, "x", ()), uid, pod, container)
    return Holdings(root, overhead_bytes=MIB).of(one)


def charged(holding, pid, start_time=1):
    """What the limiter has charged to a process of that PID in the container."""
    return holding.charged(Process(1000, pid, start_time, "x", ()), "GPU-a")


def test_our_files(root, granted, make_pod):
    """The limit is the control file's; a slot's contexts do not count as charged."""
    usage = granted("uid-a_main", ("GPU-a", 3000, 30), ("GPU-b", 0, 0))
    usage.process(3, buffer=16 * MIB, pool=4 * MIB, context=300 * MIB)
    holding = of(root, make_pod("uid-a", "main", annotations=GRANT))
    assert dict(holding.limits) == {"GPU-a": 3000 * MIB, "GPU-b": None}
    assert set(holding.slots) == {43}
    assert charged(holding, 43) == 20 * MIB
    assert (holding.limited, holding.overhead_bytes) == (True, SLACK_BYTES + MIB)


def test_a_strict_grant_counts_contexts(granted, root):
    """Then nothing but the driver's rounding is free."""
    usage = granted("uid-a_main", ("GPU-a", 3000, 0))
    usage.process(0, buffer=16 * MIB, context=300 * MIB)
    strict = Control((ControlDevice("GPU-a", MIB),), overhead_policy=OverheadPolicy.STRICT)
    holding = own_holding(strict, read_usage(usage.path), 1024 * MIB)
    assert set(holding.slots) == {40}
    assert charged(holding, 40) == 316 * MIB
    assert holding.overhead_bytes == SLACK_BYTES


@pytest.mark.parametrize("allowed", [True, False])
def test_loosened_limits_are_excused_where_the_operator_allows_it(granted, root, allowed):
    """Elsewhere a process without a limit is what the audit is for."""
    usage = granted("uid-a_main", ("GPU-a", 3000, 0))
    usage.unlimited(1)
    flags = ControlFlag.ENV_MAY_LOOSEN if allowed else ControlFlag.NONE
    control = Control(read_control(usage.path.parent / "control").devices, flags=flags)
    holding = own_holding(control, read_usage(usage.path), 0)
    assert holding.limited is not allowed
    assert holding.limits["GPU-a"] == (None if allowed else 3000 * MIB)


def test_without_a_readable_account_the_limit_stays(granted, root, make_pod):
    """And a person is told why nobody can see the limiter."""
    usage = granted("uid-a_main", ("GPU-a", 3000, 0))
    usage.path.write_bytes(b"")
    holding = of(root, make_pod("uid-a", "main"))
    assert (holding.limits["GPU-a"], holding.slots) == (3000 * MIB, None)
    assert "cannot be read" in holding.note


def test_without_any_file_the_annotation_counts(root, make_pod):
    """Memory is held against it; whether there is a limiter nobody knows (MIG has none)."""
    holding = of(root, make_pod("uid-a", "main", annotations=GRANT))
    assert (dict(holding.limits), holding.limited) == ({"GPU-a": 3000 * MIB}, False)


def test_no_grant_is_no_holding(root, make_pod):
    """Nor is a container beside one that has a grant, nor one that nobody knows."""
    assert of(root, make_pod("uid-a", "main")) is None
    pod = make_pod("uid-a", "main", "side", annotations=GRANT)
    assert of(root, pod, "side") is None
    assert of(root, pod, "") is None


def test_instances_made_by_hand_are_asked_for_by_name(root, make_pod):
    """Of the container that asks for them, not of the one beside it."""
    pod = make_pod("uid-a", "main", "side")
    main, side = pod.spec.containers
    asked = Resources(limits={"nvidia.com/mig-1g.5gb": "1"})
    containers = [structs.replace(main, resources=asked), side]
    pod = structs.replace(pod, spec=structs.replace(pod.spec, containers=containers))
    assert of(root, pod) == Holding({}, limited=False, static=True)
    assert of(root, pod, "side") is None


def test_hamis_region(root, make_pod, hami_region):
    """Its slots know no start time; the limit is the annotation's, whatever the region says."""
    hami_region("uid-a_main", limit_mib=9999, pid=7, total_mib=320, context_mib=300)
    holding = of(root, make_pod("uid-a", "main", annotations=GRANT))
    assert dict(holding.limits) == {"GPU-a": 3000 * MIB}
    assert set(holding.slots) == {7}
    assert charged(holding, 7, start_time=99) == 20 * MIB
    assert holding.limited


def test_each_look_reads_a_container_once(root, granted, make_pod):
    """A hundred processes of one container cost one reading; the next look reads anew.

    Nothing is worked out again where that says the same, launches aside.
    """
    usage = granted("uid-a_main", ("GPU-a", 3000, 0))
    usage.process(0, buffer=MIB)
    pod = make_pod("uid-a", "main")
    one = Attributed("GPU-a", Occupant(1), Process(1, 1, 1, "x", ()), "uid-a", pod, "main")
    holdings = Holdings(root, overhead_bytes=0)
    first = holdings.of(one)
    assert charged(first, 40) == MIB
    usage.process(0, last_s=5, buffer=2 * MIB)
    assert holdings.of(one) is first
    holdings.look()
    second = holdings.of(one)
    assert charged(second, 40) == 2 * MIB
    usage.process(0, last_s=6, buffer=2 * MIB)
    holdings.look()
    assert holdings.of(one) is second
    update_control(usage.path.parent / "control", lambda control: replace(control, devices=()))
    holdings.look()
    assert dict(holdings.of(one).limits) == {}
    usage.path.unlink()
    holdings.look()
    assert holdings.of(one).slots is None


def test_what_nobody_asks_for_is_not_kept(root, granted, make_pod):
    """Containers come and go for as long as the node runs."""
    pod, holdings = make_pod("uid-a", "main"), Holdings(root, overhead_bytes=0)
    granted("uid-a_main", ("GPU-a", 3000, 0))
    one = Attributed("GPU-a", Occupant(1), Process(1, 1, 1, "x", ()), "uid-a", pod, "main")
    first = holdings.of(one)
    holdings.look()
    holdings.look()
    assert holdings.of(one) is not first
