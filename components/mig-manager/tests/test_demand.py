"""Which pods wait for a card's other mode on this node."""

import msgspec
import pytest
from waiting_pods import SINCE, SINCE_S, pod, site

from hami_mig_manager.auto import Demand
from hami_mig_manager.demand import demands
from hamikit import names


def asked(count, memory):
    """A container's limits."""
    return {names.RESOURCE_COUNT: str(count), names.RESOURCE_MEMORY: str(memory)}


def cards(waiting, *taints, **labels):
    """Those that could help; nothing where none can."""
    found = list(demands([waiting], site(*taints, **labels)))
    return set(found[0].cards) if found else set()


def test_a_pod_that_demands_a_mode_and_has_no_room():
    """Since when, which mode, which cards."""
    for mode in ("mig", "hami-core"):
        expected = Demand("uid-p", mode, frozenset({"GPU-a", "GPU-b"}), 1, SINCE_S)
        assert list(demands([pod(mode=mode)], site())) == [expected]


@pytest.mark.parametrize("waiting", [
    pod(mode=""), pod(mode="mig,hami-core"), pod(mode="mps"), pod(reason="SchedulerError"),
    pod(since="never"), pod(since=None), pod({"cpu": "1"}), pod({names.RESOURCE_COUNT: "x"}),
    pod(spec={"nodeName": "m"}), pod(spec={"schedulerName": "default-scheduler"}),
    pod(spec={"nodeSelector": {"zone": "b"}}),
    pod(spec={"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
])  # fmt: skip
def test_who_would_not_be_helped(waiting):
    """Any mode will do, no word of the scheduler's, no card asked for, another node's, no sense."""
    assert cards(pod(), zone="a")
    assert cards(waiting, zone="a") == set()


def test_a_pod_that_is_going_waits_no_more():
    """Its place is taken by nobody."""
    gone = msgspec.structs.replace(pod().metadata, deletion_timestamp=SINCE)
    assert cards(msgspec.structs.replace(pod(), metadata=gone)) == set()


@pytest.mark.parametrize(("waiting", "expected"), [
    (pod(asked(1, 30000)), {"GPU-a"}), (pod(asked(1, 50000)), set()),
    (pod(asked(1, 1000), asked(1, 30000)), {"GPU-a"}),
    (pod(POD_USE_TYPE="a30, h100"), {"GPU-b"}), (pod(POD_NOUSE_TYPE="A30"), {"GPU-a"}),
    (pod(POD_USE_UUID="GPU-b"), {"GPU-b"}), (pod(POD_NOUSE_UUID="GPU-b"), {"GPU-a"}),
    (pod(spec={"nodeSelector": {"zone": "a"}}), {"GPU-a", "GPU-b"}),
])  # fmt: skip
def test_cards_that_the_pod_would_take(waiting, expected):
    """By memory, by type in any case, by UUID."""
    assert cards(waiting, zone="a") == expected


def test_how_many_cards_a_pod_needs():
    """Instances may be of one card; shares of one container are of different cards."""
    waiting = [pod(asked(2, 1000), asked(3, 1000), mode=mode) for mode in ("mig", "hami-core")]
    assert [demand.count for demand in demands(waiting, site())] == [1, 3]


TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.mark.parametrize(("toleration", "bears"), [
    ({"key": "gpu", "value": "yes"}, True), ({"key": "gpu", "value": "no"}, False),
    ({"key": "gpu", "operator": "Exists"}, True), ({"operator": "Exists"}, True),
    ({"key": "cpu", "operator": "Exists"}, False),
    ({"operator": "Exists", "effect": "NoExecute"}, False),
    ({"operator": "Exists", "effect": "NoSchedule"}, True),
])  # fmt: skip
def test_a_taint_keeps_out_who_does_not_bear_it(toleration, bears):
    """As kube-scheduler has it; one that is only preferred keeps nobody out."""
    assert cards(pod(), TAINT) == set()
    assert cards(pod(), {**TAINT, "effect": "PreferNoSchedule"})
    assert bool(cards(pod(spec={"tolerations": [toleration]}), TAINT)) is bears
    both = cards(pod(spec={"tolerations": [toleration]}), TAINT, {**TAINT, "key": "x"})
    assert bool(both) is (bears and "key" not in toleration)


def test_a_node_that_says_nothing_of_its_cards_helps_nobody():
    """Its plugin has not said what they are, or nobody can read it."""
    assert list(demands([pod()], site(register="[[["))) == []
    assert list(demands([pod()], site(register="[]"))) == []
