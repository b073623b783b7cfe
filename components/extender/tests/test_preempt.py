"""Who has to go for a pod with devices: exactly those needed, or nobody."""

import itertools

import msgspec
import pytest
from extender_kit import container, device, make_node, make_pod, node_object
from hypothesis import given, settings
from hypothesis import strategies as st

from hami_extender.placement import Placement, place
from hami_extender.preempt import NOMINATED_S, Preemptor
from hami_extender.selection import Policies, Selector
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hami_extender.wire import FilterArgs, PreemptArgs, Victims
from hamikit.codec import encode_grant
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.objects import Metadata, Node
from hamikit.quotas import QuotaSpec, ResourceQuota


def with_priority(pod, priority, *, deleted=False, **status):
    """The pod with a priority, perhaps ending."""
    return msgspec.structs.replace(
        pod,
        spec=msgspec.structs.replace(pod.spec, priority=priority),
        metadata=msgspec.structs.replace(
            pod.metadata, deletion_timestamp="2026-08-21T06:20:39Z" if deleted else None
        ),
        status=msgspec.structs.replace(pod.status, **status),
    )


class World:
    """Nodes, bound pods, and a preemptor that knows them."""

    def __init__(self, *nodes):
        self.time = 0.0
        self.snapshot = Snapshot(NVIDIA, now=lambda: self.time)
        for node in nodes:
            self.snapshot.on_node(Change(None, node))
        self.preemptor = Preemptor(self.snapshot, "spread", missing=lambda: "")
        self.selector = Selector(
            self.snapshot, Policies(), missing=lambda: "", refused=self.preemptor.refused
        )

    def bound(self, name, uuid, memory, priority=0, node="n", **more):
        """A pod with a part of a card."""
        text = f"{uuid},NVIDIA,{memory},0:;"
        pod = make_pod(name, container(gpu=1, mem=memory), node=node, POD_DEVICES_ALLOCATED=text)
        pod = with_priority(pod, priority, **more)
        self.snapshot.on_pod(Change(None, pod))
        return pod.metadata.uid

    def preempt(self, pod, **nodes):
        """Ask as kube-scheduler does; UIDs by node."""
        proposed = {name: Victims(tuple(uids)) for name, uids in nodes.items()}
        found = self.preemptor.preempt(PreemptArgs(pod, proposed))
        return {name: list(victims.uids) for name, victims in found.items()}

    def filter(self, pod):
        """Which nodes remain."""
        return self.selector.filter(FilterArgs(pod, list(self.snapshot.ledger.nodes))).node_names


def urgent(*containers, priority=1000, **more):
    """A pod that may evict."""
    pod = make_pod("urgent", *(containers or (container(gpu=1, mem=6000),)))
    return with_priority(pod, priority, **more)


def two_cards(**more):
    """Two cards of 8000 MiB."""
    return World(make_node("n", device("a", **more), device("b", 1, **more)))


def test_what_is_proposed_is_enough():
    """kube-scheduler's victims stay as they are, with its count of budgets."""
    world = two_cards()
    first = world.bound("v", "a", 8000)
    world.bound("w", "b", 8000)
    proposed = {"n": Victims((first,), violations=2)}
    assert world.preemptor.preempt(PreemptArgs(urgent(), proposed)) == proposed


def test_a_quota_is_not_preempted_for():
    """Who is short of the namespace's quota evicts nobody, not even in the own namespace."""
    world = two_cards()
    world.bound("a1", "a", 8000)
    world.bound("b1", "b", 8000)
    hard = QuotaSpec({"limits.nvidia.com/gpumem": 21999})
    quota = ResourceQuota(Metadata(name="q", namespace="default", uid="q"), hard)
    world.snapshot.on_quota(Change(None, quota))
    assert world.preempt(urgent(), n=["uid-a1"]) == {}
    world.snapshot.on_quota(
        Change(
            quota,
            msgspec.structs.replace(quota, spec=QuotaSpec({"limits.nvidia.com/gpumem": 22000})),
        )
    )
    assert world.preempt(urgent(), n=["uid-a1"]) == {"n": ["uid-a1"]}


def test_victims_are_added():
    """The proposed one frees CPU but the wrong card: the one who holds a card goes, too."""
    world = two_cards()
    world.bound("a1", "a", 5000, 10)
    world.bound("a2", "a", 2000, 5)
    world.bound("b1", "b", 8000, 500)
    assert world.preempt(urgent(), n=["cpu-hog"]) == {"n": ["cpu-hog", "uid-a1"]}


def test_the_more_important_ones_are_spared():
    """By priority, then by who started first."""
    world = two_cards()
    world.bound("a", "a", 8000, 10, start_time="2026-01-01T00:00:00Z")
    world.bound("b", "b", 8000, 20, start_time="2026-02-01T00:00:00Z")
    assert world.preempt(urgent(), n=["x"]) == {"n": ["x", "uid-a"]}
    world = two_cards()
    world.bound("a", "a", 8000, 10, start_time="2026-01-01T00:00:00Z")
    world.bound("b", "b", 8000, 10, start_time="2026-02-01T00:00:00Z")
    assert world.preempt(urgent(), n=["x"]) == {"n": ["x", "uid-b"]}


def test_a_node_that_cannot_be_helped():
    """Equals and betters stay: the node is dropped, and nobody is evicted there in vain."""
    world = two_cards()
    world.bound("a", "a", 8000, 1000)
    world.bound("b", "b", 8000, 2000)
    assert world.preempt(urgent(), n=["x"], unknown=["y"]) == {}
    assert world.preempt(urgent(container(gpu=3, mem=1)), n=["x"]) == {}


def test_nodes_are_judged_one_by_one():
    """One is kept as it is, one needs more, one is dropped."""
    world = World(*(make_node(n, device(f"{n}0")) for n in ("free", "full", "stuck")))
    world.bound("f", "full0", 8000, node="full")
    world.bound("s", "stuck0", 8000, 5000, node="stuck")
    found = world.preempt(urgent(), free=["x"], full=["y"], stuck=["z"])
    assert found == {"free": ["x"], "full": ["y", "uid-f"]}


def test_whoever_ends_anyhow_is_no_victim():
    """Its card comes free without another eviction."""
    world = two_cards()
    world.bound("ending", "a", 8000, 5000, deleted=True)
    world.bound("b", "b", 8000, 1)
    assert world.preempt(urgent(), n=["x"]) == {"n": ["x"]}


def test_a_pod_being_bound_is_no_victim():
    """kube-scheduler could not name it; its room counts as taken."""
    world = World(make_node("n", device("a")))
    other = make_pod("flying", container(gpu=1, mem=8000))
    world.snapshot.on_pod(Change(None, other))
    verdict = place(world.snapshot.ledger.nodes["n"], world.snapshot.question(other, "spread"))
    world.snapshot.hold(Kind.FLIGHT, other, "n", verdict.slots)
    assert world.preempt(urgent(), n=["x"]) == {}


def test_pods_without_devices_and_bad_requests():
    """Not ours: as proposed. Never placeable: nobody goes."""
    world = two_cards()
    assert world.preempt(urgent({"name": "plain"}), n=["x"]) == {"n": ["x"]}
    assert world.preempt(urgent(container(gpu=1, cores=900)), n=["x"]) == {}


def test_a_grant_that_cannot_be_read():
    """Its node takes no pod until it is gone, so it has to go."""
    world = World(make_node("n", device("a")))
    odd = make_pod("odd", container(gpu=1, mem=1), node="n", POD_DEVICES_ALLOCATED="a,b:")
    world.snapshot.on_pod(Change(None, odd))
    assert world.preempt(urgent(), n=["x"]) == {"n": ["x", "uid-odd"]}


def test_ids_of_kubelet_are_freed_too():
    """Cards are free, but kubelet has no slot left until somebody ends."""
    value = node_object("n", device("a"), device("b", 1))
    value["status"]["allocatable"] = {"nvidia.com/gpu": "1"}
    world = World(msgspec.convert(value, Node))
    world.bound("v", "a", 100)
    assert world.preempt(urgent(), n=["x"]) == {"n": ["x", "uid-v"]}


def test_nothing_is_changed():
    """Asking evicts nobody and moves no version."""
    world = two_cards()
    world.bound("a", "a", 8000)
    world.bound("b", "b", 8000)
    state = world.snapshot.ledger.nodes["n"]
    before = (state.version, dict(state.used), dict(state.ids), dict(state.holders))
    world.preempt(urgent(), n=["x"])
    assert before == (state.version, state.used, state.ids, state.holders)


def test_the_room_is_kept_for_whoever_preempted():
    """Between the end of the victims and its own bind nobody else gets it."""
    world = World(make_node("n", device("a")))
    world.bound("v", "a", 8000)
    pod, rival = urgent(), make_pod("rival", container(gpu=1, mem=6000))
    assert world.preempt(pod, n=["uid-v"]) == {"n": ["uid-v"]}
    nominated = urgent(nominated_node_name="n")
    world.preemptor.on_pod(Change(pod, nominated))
    world.bound("v", "a", 8000, deleted=True)
    # It comes back too early, and its claim must outlive that.
    assert world.filter(nominated) == []
    world.snapshot.on_pod(Change(make_pod("v"), None))
    assert world.filter(rival) == []
    assert world.filter(nominated) == ["n"]


def test_room_is_not_kept_for_ever():
    """A preemptor that never comes back loses it."""
    world = World(make_node("n", device("a")))
    world.bound("v", "a", 8000)
    world.preempt(urgent(), n=["uid-v"])
    world.preemptor.on_pod(Change(None, urgent(nominated_node_name="n")))
    world.snapshot.on_pod(Change(make_pod("v"), None))
    world.time = NOMINATED_S + 1
    assert world.filter(make_pod("rival", container(gpu=1, mem=6000))) == ["n"]


@pytest.mark.parametrize("pod", [urgent(), urgent(nominated_node_name="other")])
def test_no_room_is_kept_without_a_nomination_of_ours(pod):
    """Nor on a node that we did not answer with."""
    world = World(make_node("n", device("a")), make_node("other", device("b")))
    world.bound("v", "a", 8000)
    world.preempt(urgent(), n=["uid-v"])
    world.preemptor.on_pod(Change(None, pod))
    world.preemptor.on_pod(Change(pod, None))
    assert all(held.kind is not Kind.CLAIM for held in world.snapshot.ledger.holdings.values())


HOLDERS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(500, 4000), st.integers(0, 4)), max_size=6
)


@settings(max_examples=80, deadline=None)
@given(HOLDERS, st.integers(1, 3), st.integers(500, 8000), st.integers(0, 4))
def test_exactly_whom_it_needs(holders, cards, memory, priority):
    """Against trying every set: fits without them, with less priority only, and none in vain."""
    world = World(make_node("n", *(device(u, i) for i, u in enumerate("abc"))))
    for number, (uuid, taken, level) in enumerate(holders):
        world.bound(f"h{number}", uuid, taken, level)
    pod = urgent(container(gpu=cards, mem=memory), priority=priority)
    question = world.snapshot.question(pod, "spread")
    lower = {f"uid-h{n}" for n, (_, _, level) in enumerate(holders) if level < priority}

    def fits(gone):
        trial = World(make_node("n", *(device(u, i) for i, u in enumerate("abc"))))
        for number, (uuid, taken, level) in enumerate(holders):
            if f"uid-h{number}" not in gone:
                trial.bound(f"h{number}", uuid, taken, level)
        return isinstance(place(trial.snapshot.ledger.nodes["n"], question), Placement)

    found = world.preempt(pod, n=["x"])
    possible = fits(lower)
    assert bool(found) is possible
    if possible:
        victims = set(found["n"]) - {"x"}
        assert victims <= lower
        assert fits(victims)
        assert not any(
            fits(fewer)
            for size in range(len(victims))
            for fewer in map(set, itertools.combinations(victims, size))
        )


def test_grants_are_spelled_as_in_the_api():
    """The helper's text is what the codec writes."""
    world = two_cards()
    world.bound("v", "a", 100)
    (held,) = world.snapshot.ledger.holdings.values()
    assert encode_grant(held.slots) == "a,NVIDIA,100,0:;"
