"""The auditor's reading of the API, and its arithmetic."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.audit.grants import parse_grant, parse_node, parse_pod, taken
from e2e.audit.model import Card, Container, Device, Node

ROLES = ("init", "sidecar", "app")


def test_a_grant_has_one_entry_a_container():
    """Empty entries are containers without devices."""
    text = ";GPU-a,NVIDIA,3000,30:GPU-b,NVIDIA,100,0:;"
    expected = [(), (Device("GPU-a", 3000, 30), Device("GPU-b", 100, 0))]
    assert parse_grant(text, 2) == expected


@pytest.mark.parametrize(
    ("text", "containers", "says"),
    [
        ("GPU-a,NVIDIA,3000,30:", 1, "does not end in ';'"),
        ("GPU-a,NVIDIA,3000,30:;;", 1, "has 2 containers, the pod 1"),
        ("GPU-a,NVIDIA,3000,30:;", 2, "has 1 containers, the pod 2"),
        ("GPU-a,NVIDIA,3000,30;", 1, "does not end in ':'"),
        ("GPU-a,NVIDIA,3000:;", 1, "is not 'uuid"),
        (",NVIDIA,3000,30:;", 1, "is not 'uuid"),
        ("GPU-a,NVIDIA,x,30:;", 1, "invalid literal"),
        ("GPU-a,NVIDIA,-1,30:;", 1, "out of range"),
        ("GPU-a,NVIDIA,1,101:;", 1, "out of range"),
    ],
)
def test_a_grant_that_is_none_is_refused(text, containers, says):
    """The error says what is wrong with it."""
    with pytest.raises(ValueError, match=says):
        parse_grant(text, containers)


def pod_object(**changes):
    """A pod as the API shows it: init, sidecar, app."""
    running = {"state": {"running": {}}, "containerID": "containerd://cc"}
    ended = {"terminated": {"containerID": "containerd://bb"}}
    return {
        "metadata": {
            "uid": "uid-a",
            "namespace": "ns",
            "name": "pod",
            "annotations": {
                "hami.io/vgpu-devices-allocated": "GPU-a,NVIDIA,1,2:;;GPU-a,NVIDIA,3,4:;",
                "hami.io/vgpu-node": "n1",
            },
        },
        "spec": {
            "nodeName": "n1",
            "initContainers": [{"name": "first"}, {"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "main"}],
        },
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": "main", "lastState": ended, **running}],
        },
        **changes,
    }


def test_a_pod_with_roles_and_states():
    """Order, roles, whether it runs, and every runtime id it has had."""
    pod = parse_pod(pod_object())
    assert (pod.uid, pod.name, pod.node, pod.granted_node) == ("uid-a", "ns/pod", "n1", "n1")
    assert pod.containers == (
        Container("first", "init", (Device("GPU-a", 1, 2),)),
        Container("side", "sidecar"),
        Container("main", "app", (Device("GPU-a", 3, 4),), True, frozenset({"bb", "cc"})),
    )


def test_pods_that_hold_nothing():
    """An ended pod has let go; a pod without a grant never held anything."""
    plain = pod_object()
    plain["metadata"]["annotations"] = None
    assert parse_pod(plain) is None
    assert parse_pod(pod_object(status={"phase": "Succeeded"})) is None


def test_a_pod_being_deleted_still_holds_its_grant():
    """Kubelet holds the devices until the object is gone."""
    pod = pod_object()
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert parse_pod(pod) is not None


def test_a_pod_with_a_broken_grant_is_kept_with_its_fault():
    """It must be reported, not forgotten."""
    pod = pod_object()
    pod["metadata"]["annotations"]["hami.io/vgpu-devices-allocated"] = "nonsense"
    assert "does not end" in parse_pod(pod).fault


def node_object(text):
    """A node with this announcement."""
    return {"metadata": {"name": "n1", "annotations": {"hami.io/node-nvidia-register": text}}}


def test_a_node_announces_cards():
    """Zero values are left out on the wire."""
    cards = [{"id": "GPU-a", "count": 10, "devmem": 40960, "devcore": 100}, {"id": "GPU-b"}]
    expected = Node("n1", (Card("GPU-a", 40960, 100, 10), Card("GPU-b", 0, 0, 0)))
    assert parse_node(node_object(json.dumps(cards))) == expected
    assert parse_node({"metadata": {"name": "n1"}}) == Node("n1")


@pytest.mark.parametrize("text", ["[", "{}x", '[{"x":1}]', "[1]"])
def test_an_announcement_that_is_none(text):
    """A fault, no exception."""
    assert "cannot be read" in parse_node(node_object(text)).fault


def test_the_worst_moment_of_a_pod():
    """Sidecars count beside the init containers after them, and beside all apps."""
    containers = [
        Container("big", "init", (Device("a", 500, 50),)),
        Container("side", "sidecar", (Device("a", 100, 10),)),
        Container("small", "init", (Device("a", 300, 5), Device("b", 7, 7))),
        Container("one", "app", (Device("a", 200, 20),)),
        Container("two", "app", (Device("a", 150, 15),)),
    ]
    assert taken(containers) == {"a": (3, 500, 50), "b": (1, 7, 7)}


pods = st.lists(
    st.builds(
        Container,
        st.just("c"),
        st.sampled_from(ROLES),
        st.lists(
            st.builds(Device, st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 9)),
            max_size=2,
        ).map(tuple),
    ),
    max_size=6,
)


@given(pods)
def test_no_moment_of_a_pods_life_exceeds_what_it_takes(containers):
    """Replays the pod's life, container by container, with everything that runs at each step."""
    worst = taken(containers)
    started = []
    for container in sorted(containers, key=lambda c: c.role == "app"):
        running = [c for c in started if c.role != "init"] + [container]
        started.append(container)
        for uuid in "ab":
            now = [d for c in running for d in c.granted if d.uuid == uuid]
            used = (len(now), sum(d.memory_mib for d in now), sum(d.cores for d in now))
            assert all(x <= y for x, y in zip(used, worst.get(uuid, (0, 0, 0)), strict=True))


@pytest.mark.parametrize("text", ["no json", '{"a":1}', "[1]", '[{"id":"a","devmem":"x"}]'])
def test_a_register_of_another_form_is_a_fault_of_its_node(text):
    """The audit goes on and says so, instead of ending."""
    annotations = {"hami.io/node-nvidia-register": text}
    node = parse_node({"metadata": {"name": "n", "annotations": annotations}})
    assert node.cards == ()
    assert "cannot be read" in node.fault
