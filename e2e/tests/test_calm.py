"""What keeps a test from beginning: each thing that is still in motion, by its name."""

from datetime import UTC, datetime

import pytest

from e2e.calm import motion

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def pod(name, namespace, ready="True", **more):
    """A pod of the cluster's."""
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, **more},
        "status": status,
    }


def node(ready="True", offered="20", *, cordoned=False, **notes):
    """A node with cards."""
    return {
        "kind": "Node",
        "metadata": {
            "name": "n",
            "annotations": {"hami.io/node-nvidia-register": "[]"} | notes.get("notes", {}),
        },
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "allocatable": {"cpu": "2", "old.example/gpu": "0", "nvidia.com/gpu": offered},
        },
    }


def lease(name="hami-scheduler", holder="s-1_x", at="2026-01-01T11:59:58.5Z"):
    """Who leads."""
    namespace = "hami-system" if name == "hami-scheduler" else "kube-system"
    return {
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"holderIdentity": holder, "renewTime": at},
    }


CALM = [
    pod("s-1", "hami-system"),
    pod("dns", "kube-system"),
    pod("waits", "a-users", ready="False"),
    node(),
    lease(),
    lease("kube-scheduler", "control-plane_x"),
    lease("of-somebody", "gone", "2020-01-01T00:00:00Z"),
]


def test_a_calm_cluster():
    """A pod of a user's may wait, and who else holds leases is not our business."""
    assert motion(CALM, NOW) is None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (pod("old", "hami-system", deletionTimestamp="x"), "hami-system/old is ending"),
        (pod("left", "some-test", deletionTimestamp="x"), "some-test/left is ending"),
        (pod("s-2", "hami-system", ready="False"), "hami-system/s-2 is not ready"),
        (pod("dns-2", "kube-system", ready="False"), "kube-system/dns-2 is not ready"),
        (node(ready="Unknown"), "n takes no pods"),
        (node(cordoned=True), "n takes no pods"),
        (node(offered="0"), "kubelet on n offers none of its cards"),
        (node(notes={"hami.io/node-paused": "an upgrade"}), "n is paused"),
        (lease(at="2026-01-01T11:59:40Z"), "nobody leads hami-scheduler"),
        (lease(holder=""), "nobody leads hami-scheduler"),
        (lease(holder="s-0_x"), "s-0_x leads hami-scheduler, but is gone"),
        (lease("kube-controller-manager", holder=""), "nobody leads kube-controller-manager"),
    ],
)
def test_what_is_in_motion_is_named(more, told):
    """Each by itself, beside a cluster that is calm otherwise."""
    said = motion([*CALM, more], NOW)
    assert said is not None
    assert said.startswith(f"a calm cluster: {told}")
    assert ";" not in said


def test_without_our_programs_nobody_has_to_lead_them():
    """The product may be off the cluster."""
    assert motion([node(), lease(holder="s-1_x")], NOW) is None
