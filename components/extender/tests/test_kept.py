"""What is remembered of a pod."""

import msgspec
from extender_kit import container, make_pod

from hami_extender.kept import kept
from hami_extender.snapshot import Snapshot
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.shape import roles_of

SIDECAR = {**container("s"), "restartPolicy": "Always"}


def test_a_waiting_pod_is_kept_whole():
    """What it asks is asked again and again."""
    pod = make_pod("p")
    assert kept(pod) is pod


def test_of_a_bound_pod_only_who_it_is():
    """Its names, containers by name and role, phases; its grant is in the ledger."""
    pod = make_pod(
        "p", container("a", gpu=1), container("b"), init=(container("i"), SIDECAR), node="n",
        phase="Running", POD_BIND_PHASE="allocating", POD_NODE="n", uid="u",
    )  # fmt: skip
    status = msgspec.structs.replace(pod.status, start_time="2026-11-23T08:00:00Z")
    spec = msgspec.structs.replace(pod.spec, priority=7)
    slim = kept(msgspec.structs.replace(pod, spec=spec, status=status))
    assert (slim.spec.priority, slim.status.start_time) == (7, "2026-11-23T08:00:00Z")
    assert (slim.key, slim.metadata.uid, slim.metadata.resource_version) == ("default/p", "u", "1")
    assert slim.spec.node_name == "n"
    assert slim.status.phase == "Running"
    assert slim.metadata.annotations == {"hami.io/bind-phase": "allocating"}
    assert [c.name for c in slim.all_containers] == ["i", "s", "a", "b"]
    assert roles_of(slim) == roles_of(pod)
    assert all(c.resources is None for c in slim.all_containers)
    assert kept(make_pod("q", node="n")).metadata.annotations == {}


def test_the_informer_remembers_the_same_object():
    """Once, not twice."""
    view = Snapshot(NVIDIA)
    pod = make_pod("p", node="n", POD_DEVICES_ALLOCATED="a,NVIDIA,1,0:;")
    view.on_pod(Change(None, pod))
    assert view.kept(pod) is view.pods["uid-p"]
    ended = make_pod("p", node="n", phase="Succeeded")
    view.on_pod(Change(pod, ended))
    assert view.kept(ended).status.phase == "Succeeded"
