"""HAMi's node lock: one pod at a time, and never a lock that stays."""

import threading

import pytest
from extender_cluster import LOST_AFTER, LOST_BEFORE, BindWorld
from extender_kit import device, make_node, make_pod
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hami_extender import nodelock
from hami_extender.flights import Refused
from hami_extender.nodelock import is_of, owner
from hamikit import names
from hamikit.cluster import ApiError
from hamikit.informer import Change

MINE = "2026-08-21T06:20:39Z,default,p"
OTHERS = "2026-08-21T06:20:00Z,default,other"


def world_with(lock=None, name="n", binding=names.BINDING_LOCK):
    """A lock node with two cards, perhaps locked, and a pod `p`."""
    more = {"NODE_LOCK": lock} if lock else {}
    if binding:
        more["NODE_BINDING"] = binding
    world = BindWorld(make_node(name, device("GPU-a"), device("GPU-b", 1), **more))
    pod = world.cluster.add("p")
    world.cluster.deliver_all(world.snapshot)
    return world, pod


def lock_of(world, node="n"):
    """The node's lock at the API server."""
    return world.cluster.nodes[node].metadata.annotations.get(names.NODE_LOCK)


def plugin(world, name, phase="success"):
    """What the node's plugin does once kubelet asked it."""
    world.cluster.patch(
        f"/api/v1/pods/{name}", {"metadata": {"annotations": {names.POD_BIND_PHASE: phase}}}
    )
    world.cluster.deliver_all(world.snapshot)
    node = world.cluster.nodes["n"]
    world.cluster.store(world.cluster.nodes, node, {"annotations": {names.NODE_LOCK: None}})
    world.locks.on_node(Change(node, world.cluster.nodes["n"]))


def test_lock_label_binding():
    """In this order; the pod is complete for the plugin when it is bound."""
    world, pod = world_with()
    assert world.bind(pod) == ""
    (node_path, lock), (pod_path, label) = world.cluster.patches
    assert node_path == "/api/v1/nodes/n"
    assert lock["metadata"] == {"resourceVersion": "1", "annotations": {names.NODE_LOCK: MINE}}
    assert pod_path == "/api/v1/namespaces/default/pods/p"
    assert label["metadata"] == {"uid": "uid-p", "labels": {names.POD_NODE: "n"}}
    (binding,) = world.cluster.bindings
    said = binding["metadata"]["annotations"]
    assert said[names.POD_BIND_PHASE] == "allocating"
    assert (said[names.POD_NODE], said[names.POD_BIND_TIME]) == ("n", "1787293239")
    assert said[names.POD_DEVICES_TO_ALLOCATE] == said[names.POD_DEVICES_ALLOCATED]
    world.locks.look()
    assert lock_of(world) == MINE


def test_late_nodes_are_never_locked():
    """One write, nothing else."""
    world, pod = world_with(binding=names.BINDING_LATE)
    assert world.bind(pod) == ""
    assert world.cluster.patches == []
    assert world.cluster.bindings[0]["metadata"]["annotations"][names.POD_BIND_PHASE] == "success"


def test_a_long_name_gets_no_label():
    """A label's value ends at 63 characters; the node stays usable (HAMi defect 8.14)."""
    name = "n" * 64
    world, pod = world_with(name=name)
    assert world.bind(pod, name) == ""
    assert [path for path, _ in world.cluster.patches] == [f"/api/v1/nodes/{name}"]


def test_the_next_pod_waits_for_the_plugin():
    """A bind ends when the plugin has served the one before."""
    world, first = world_with()
    second = world.cluster.add("q")
    world.cluster.deliver_all(world.snapshot)
    assert world.bind(first) == ""
    world.cluster.deliver_all(world.snapshot)
    looks = []

    def after_two_looks(kind, read=world.cluster.get):
        def get(path, kind_):
            if path.endswith("/nodes/n"):
                looks.append(path)
                if len(looks) == 3:
                    plugin(world, "p")
            return read(path, kind_)

        return get

    world.cluster.get = after_two_looks(None)
    assert world.bind(second) == ""
    assert len(looks) >= 3
    assert lock_of(world).endswith(",default,q")


def test_a_lock_that_is_not_released_in_time():
    """The bind is refused and holds nothing; kube-scheduler tries again."""
    world, pod = world_with(OTHERS)
    world.cluster.add("other", node="n")
    error = world.bind(pod)
    assert error == f"n is locked ({OTHERS}): node lock contention"
    assert world.kind(pod) is None
    assert world.cluster.bindings == []
    assert lock_of(world) == OTHERS


@pytest.mark.parametrize(
    ("other", "taken"),
    [
        (None, True),
        ({"node": "n", "phase": "Succeeded"}, True),
        ({"node": "n", "POD_BIND_PHASE": "success"}, True),
        ({"node": "n", "POD_BIND_PHASE": "failed"}, True),
        ({"node": "m", "POD_BIND_PHASE": "allocating"}, True),
        ({"node": "n", "POD_BIND_PHASE": "allocating"}, False),
        ({}, False),
    ],
    ids=["gone", "ended", "served", "failed", "elsewhere", "being served", "not yet bound"],
)
def test_whose_lock_is_left_over(other, taken):
    """One that its owner needs no more is taken over, in one write under the version just read."""
    world, pod = world_with(OTHERS)
    if other is not None:
        world.cluster.add("other", **other)
    assert (world.bind(pod) == "") is taken
    assert lock_of(world) == (MINE if taken else OTHERS)
    if taken:
        assert world.cluster.patches[0][1]["metadata"]["resourceVersion"] == "1"


@pytest.mark.parametrize(
    ("value", "owner_", "seconds", "taken"),
    [
        (OTHERS, {"node": "n"}, 301, True),
        (OTHERS, {"node": "n"}, 280, False),
        (OTHERS, {}, 31, True),
        (OTHERS, {}, 15, False),
        ("2026-08-21T06:20:00Z", None, 301, True),
        ("2026-08-21T06:20:00Z", None, 280, False),
        ("junk,of,four,parts", None, 301, True),
        ("2099-01-01T00:00:00Z,default,other", {"node": "n"}, 301, True),
        ("1999-01-01T00:00:00Z,default,other", {"node": "n"}, 200, False),
    ],
)
def test_age_is_by_our_own_watch(value, owner_, seconds, taken):
    """However the writer's clock goes; nothing that cannot be read stays for ever."""
    world, pod = world_with(value)
    world.locks.on_node(Change(None, world.cluster.nodes["n"]))
    if owner_ is not None:
        world.cluster.add("other", **owner_)
    world.time += seconds
    assert (world.bind(pod) == "") is taken


def test_an_owner_whose_bind_is_under_way_keeps_its_lock():
    """However long its outcome is open."""
    world, pod = world_with(OTHERS)
    other = world.cluster.add("other")
    world.locks.on_node(Change(None, world.cluster.nodes["n"]))
    world.flights.start(other, "n")
    world.time += 100
    assert "contention" in world.bind(pod)


def test_our_own_lock_again():
    """A second attempt finds its lock and goes on."""
    world, pod = world_with(MINE)
    assert world.bind(pod) == ""


def test_somebody_comes_in_between():
    """A conflict means to look again: the newcomer has the lock."""
    world, pod = world_with()
    world.cluster.add("other", node="n")
    patch, late = world.cluster.patch, []

    def intruded(path, body):
        if not late:
            late.append(path)
            world.cluster.store(
                world.cluster.nodes,
                world.cluster.nodes["n"],
                {"annotations": {names.NODE_LOCK: OTHERS}},
            )
        return patch(path, body)

    world.cluster.patch = intruded
    assert "node lock contention" in world.bind(pod)
    assert lock_of(world) == OTHERS


def test_two_who_see_the_same_lock_left_over():
    """One of them has it afterwards (HAMi defect 8.9: both)."""
    world, pod = world_with(OTHERS)
    rival = world.cluster.add("q")
    world.cluster.add("other", node="n", phase="Failed")
    patch, second = world.cluster.patch, world.new_locks()
    went = []

    def both(path, body):
        if not went:
            went.append(path)
            second.take("n", rival)
        return patch(path, body)

    world.cluster.patch = both
    with pytest.raises(Refused, match="node lock contention"):
        world.locks.take("n", pod)
    assert lock_of(world).endswith(",default,q")


@pytest.mark.parametrize(
    "fault", [ApiError(409, "Conflict", "no"), ApiError(404, "NotFound", "no")]
)
def test_a_failed_binding_leaves_no_lock(fault):
    """The next look takes it off."""
    world, pod = world_with()
    world.cluster.faults.append(fault)
    assert world.bind(pod) != ""
    assert lock_of(world) == MINE
    world.locks.look()
    assert lock_of(world) is None
    world.locks.look()
    assert len(world.cluster.patches) == 3


@pytest.mark.parametrize("lost", [LOST_BEFORE, LOST_AFTER])
def test_a_lost_answer_to_the_lock_leaves_none(lost):
    """It may be written all the same: refused, and taken off."""
    world, pod = world_with()
    world.cluster.patch_faults.append(lost)
    assert "lock of node n" in world.bind(pod)
    assert world.kind(pod) is None
    world.locks.look()
    assert lock_of(world) is None


def test_a_pod_that_cannot_be_labelled():
    """It is not bound, and leaves no lock."""
    world, pod = world_with()
    world.cluster.patch_faults.extend(("ok", ApiError(409, "Conflict", "uid")))
    assert "label of pod default/p" in world.bind(pod)
    assert (world.cluster.bindings, world.kind(pod)) == ([], None)
    world.locks.look()
    assert lock_of(world) is None


def test_a_plugin_that_could_not_release():
    """The pod was served and the lock stayed (HAMi's defect): we take it off."""
    world, pod = world_with()
    world.bind(pod)
    changes = {"metadata": {"annotations": {names.POD_BIND_PHASE: "success"}}}
    world.cluster.patch("/api/v1/pods/p", changes)
    world.cluster.deliver_all(world.snapshot)
    world.flights.settle()
    world.locks.look()
    assert lock_of(world) is None


def test_only_ones_own_lock_is_released():
    """Another's stays, whoever asks; trouble is left for the next look."""
    world, pod = world_with()
    world.locks.take("n", pod)
    theirs = {"annotations": {names.NODE_LOCK: OTHERS}}
    world.cluster.store(world.cluster.nodes, world.cluster.nodes["n"], theirs)
    world.locks.look()
    assert lock_of(world) == OTHERS
    world.locks.release("gone", pod)
    world.cluster.unreadable = 1
    world.locks.release("n", pod)
    assert lock_of(world) == OTHERS


def test_a_second_bind_keeps_the_lock_that_the_first_one_left():
    """The look that is to take it off meets the second bind at each of its requests."""
    requests = ("get", "patch")
    for name in requests:
        world, pod = world_with()
        world.cluster.faults.append(ApiError(404, "NotFound", "no"))
        assert world.bind(pod) != ""
        real, threads = getattr(world.cluster, name), []

        def meet(*args, world=world, pod=pod, name=name, real=real, threads=threads, **more):
            setattr(world.cluster, name, real)
            threads.append(threading.Thread(target=world.bind, args=(pod,)))
            threads[0].start()
            threads[0].join(0.2)
            return real(*args, **more)

        setattr(world.cluster, name, meet)
        world.locks.look()
        threads[0].join(20)
        (binding,) = world.cluster.bindings
        assert binding["metadata"]["name"] == "p"
        assert lock_of(world) == MINE


def test_a_lock_passes_to_a_pod_of_the_same_name():
    """A StatefulSet's pod is gone and there again: the end of the first is not the second's."""
    world, old = world_with()
    world.locks.take("n", old)
    new = replace(old, metadata=replace(old.metadata, uid="uid-new"))
    world.flights.start(new, "n")
    world.locks.take("n", new)
    world.locks.release("n", old)
    assert lock_of(world) == MINE


def test_trouble_at_release_is_tried_again():
    """A lock must not stay because one request got lost."""
    world, pod = world_with()
    world.locks.take("n", pod)
    world.cluster.unreadable = 1
    world.locks.look()
    assert lock_of(world) == MINE
    world.cluster.patch_faults.append(ApiError(500, "Internal", "no"))
    world.locks.look()
    assert lock_of(world) == MINE
    world.locks.look()
    assert lock_of(world) is None


def test_filter_always_finds_a_thread(monkeypatch):
    """Binds that wait for locks are not more than half of the threads."""
    monkeypatch.setattr(nodelock, "WAITERS", 0)
    world, pod = world_with()
    assert "too many pods wait" in world.bind(pod)


def test_a_node_that_vanishes():
    """No lock, no trouble."""
    world, pod = world_with(MINE)
    world.locks.on_node(Change(None, world.cluster.nodes["n"]))
    gone = world.cluster.nodes.pop("n")
    world.locks.on_node(Change(gone, None))
    assert "404" in world.bind(pod)
    world.locks.look()


@given(st.text(max_size=30))
def test_any_text_is_a_lock_or_none(value):
    """Whatever stands there, it names a pod by three parts or nobody."""
    found = owner(value)
    assert found is None or value.count(",") == 2
    assert is_of(value, make_pod("p")) is (found == ("default", "p"))
