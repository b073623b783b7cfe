"""A namespace never holds more than its quotas allow, and hears when there is more."""

from dataclasses import replace

import pytest
from explain_world import ExplainWorld
from extender_cluster import BindWorld
from extender_kit import container, device, make_node, make_pod
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from hami_extender.metrics import ClusterCollector
from hami_extender.question import PLENTY, Headroom
from hami_extender.quota import Budget
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hamikit.codec import GrantedDevice
from hamikit.devices import HYGON, NVIDIA
from hamikit.informer import Change
from hamikit.objects import Metadata
from hamikit.quotas import QuotaSpec, ResourceQuota

MEM, CORES = "limits.nvidia.com/gpumem", "limits.nvidia.com/gpucores"


def quota(name="team", namespace="default", **hard):
    """A ResourceQuota on memory and cores."""
    keys = {"mem": MEM, "cores": CORES}
    metadata = Metadata(name=name, namespace=namespace, uid=f"uid-{namespace}-{name}")
    return ResourceQuota(metadata, QuotaSpec({keys[key]: value for key, value in hard.items()}))


def room_for(world, **limits):
    """Where a pod with these limits could go."""
    return world.filter(make_pod("p", container(gpu=1, **limits)))


def test_memory_and_cores():
    """What is held counts, on every card of a pod."""
    world = ExplainWorld(make_node("n", device("a"), device("b", 1)))
    world.snapshot.on_quota(Change(None, quota(mem=5000, cores=60)))
    assert room_for(world, mem=5000).node_names == ["n"]
    assert room_for(world, mem=5001).failed == {"n": "2/2 ResourceQuotaNotFit"}
    assert room_for(world, mem=1, cores=61).failed == {"n": "2/2 ResourceQuotaNotFit"}
    world.snapshot.expire_claims()
    world.time = 10
    world.use("n", "a", 3000, 30)
    assert room_for(world, mem=2000, cores=30).node_names == ["n"]
    world.time = 20
    assert not room_for(world, mem=2001).node_names
    assert not room_for(world, mem=1, cores=31).node_names
    two = make_pod("two", container(gpu=2, mem=1001))
    assert world.filter(two).failed == {
        "n": "1/2 AllocatedCardsInsufficientRequest, 1/2 ResourceQuotaNotFit"
    }


def test_other_namespaces_and_other_resources():
    """A quota is its namespace's, and says nothing of what it does not name."""
    world = ExplainWorld(make_node("n", device("a")))
    world.snapshot.on_quota(Change(None, quota(namespace="other", mem=1)))
    world.snapshot.on_quota(Change(None, quota(cores=100)))
    assert room_for(world, mem=8000, cores=100).node_names == ["n"]


def test_several_quotas_all_hold():
    """HAMi lets the last one win; here the tightest does, until it is gone (HAMi defect 8.31)."""
    world = ExplainWorld(make_node("n", device("a")))
    tight, wide = quota("tight", mem=1000), quota("wide", mem=9000)
    for each in (tight, wide):
        world.snapshot.on_quota(Change(None, each))
    assert not room_for(world, mem=1001).node_names
    changed = quota("tight", mem=2000)
    world.snapshot.on_quota(Change(tight, changed))
    assert room_for(world, mem=2000).node_names
    world.time = 10
    assert not room_for(world, mem=2001).node_names
    world.snapshot.on_quota(Change(changed, None))
    assert room_for(world, mem=8000).node_names
    world.time = 20
    world.snapshot.on_quota(Change(wide, quota("wide", mem=0)))
    assert not room_for(world, mem=1).node_names


def test_a_percentage_is_priced_on_the_card():
    """Admission cannot do that; a smaller card may fit where a larger does not."""
    world = ExplainWorld(make_node("n", device("a", devmem=2000), device("b", 1)))
    world.snapshot.on_quota(Change(None, quota(mem=1500)))
    answer = world.simulator.simulate(make_pod("p", container(gpu=1, percent=50)))
    assert [d.uuid for d in answer.devices] == ["a"]
    assert not room_for(world, percent=80).node_names


def test_init_containers_count_at_their_peak():
    """The larger of init and app on a card, by kubelet's arithmetic (HAMi defect 8.7)."""
    world = ExplainWorld(make_node("n", device("a")))
    world.snapshot.on_quota(Change(None, quota(mem=4000)))
    init = (container("i", gpu=1, mem=2000),)
    apps = [container(name, gpu=1, mem=2000) for name in "xy"]
    assert world.filter(make_pod("p", *apps, init=init)).node_names == ["n"]
    world.time = 10
    apps.append(container("z", gpu=1, mem=1))
    assert not world.filter(make_pod("p", *apps, init=init)).node_names


def test_memory_factor():
    """The limit is in the resource's own unit."""
    family = replace(NVIDIA, memory_factor=10)
    snapshot = Snapshot(family)
    snapshot.on_quota(Change(None, quota(mem=100)))
    question = snapshot.question(make_pod("p", container(gpu=1, percent=50)), "spread")
    assert snapshot.limited(question, make_pod("p")).parts[0].headroom == Headroom(1000)
    slots = ((GrantedDevice("a", "NVIDIA", 995, 0),),)
    snapshot.hold(Kind.GRANT, make_pod("q"), "n", slots)
    assert snapshot.limited(question, make_pod("p")).parts[0].headroom == Headroom(5)
    (standing, *_) = snapshot.budget.standings(snapshot.families)
    assert (standing.used, standing.limit) == (100, 100)


def test_equal_pods_ask_equal_questions():
    """Where the quota is far off it is no part of the question: the table of answers is kept."""
    snapshot = Snapshot(NVIDIA)
    pod = make_pod("p", container(gpu=2, mem=1000, cores=10))
    question = snapshot.question(pod, "spread")
    assert snapshot.limited(question, pod) is question
    snapshot.on_quota(Change(None, quota(mem=2000, cores=20)))
    assert snapshot.limited(question, pod) == question
    snapshot.on_quota(Change(None, quota("less", mem=1999)))
    limited = snapshot.limited(question, pod)
    assert limited.parts[0].headroom == Headroom(1999)
    for name in ("team", "less"):
        snapshot.on_quota(Change(quota(name), None))
    assert snapshot.limited(limited, pod).parts[0].headroom == PLENTY


def test_each_family_by_its_own_names():
    """Renamed or foreign, the limit is that of the family's resource."""
    snapshot = Snapshot(NVIDIA, HYGON)
    spec = QuotaSpec({f"limits.{HYGON.memory}": "7"})
    meta = Metadata(name="q", namespace="default", uid="u")
    snapshot.on_quota(Change(None, ResourceQuota(meta, spec)))
    slots = ((GrantedDevice("d", "DCU", 5, 0), GrantedDevice("a", "NVIDIA", 100, 9)),)
    snapshot.hold(Kind.GRANT, make_pod("q"), "n", slots)
    standings = {
        s.resource: (s.used, s.limit) for s in snapshot.budget.standings(snapshot.families)
    }
    assert standings == {
        "nvidia.com/gpumem": (100, None),
        "nvidia.com/gpucores": (9, None),
        HYGON.memory: (5, 7),
    }


def test_claims_count_for_filter_only():
    """Two pods are not both promised the rest; a bind is not kept out by another's claim."""
    world = BindWorld(make_node("n", device("a")), make_node("m", device("b")))
    world.snapshot.on_quota(Change(None, quota(mem=1000)))
    first, second = (world.cluster.add(name) for name in "pq")
    world.cluster.deliver_all(world.snapshot)
    slots = ((GrantedDevice("b", "NVIDIA", 1000, 0),),)
    world.snapshot.claim(second, "m", slots, 5)
    question = world.snapshot.question(first, "spread")
    assert world.snapshot.limited(question, first).parts[0].headroom == Headroom(0)
    assert world.bind(first) == ""
    assert "ResourceQuotaNotFit" in world.bind(second, "m")


def test_a_failed_bind_gives_back():
    """What was not written is not held."""
    world = BindWorld(make_node("n", device("a")))
    world.snapshot.on_quota(Change(None, quota(mem=1000)))
    first, second = (world.cluster.add(name) for name in "pq")
    world.cluster.deliver_all(world.snapshot)
    world.cluster.faults.append("lost before the write")
    assert world.bind(first) != ""
    assert world.bind(second) == ""


def test_a_quota_change_wakes():
    """A larger limit, a smaller use and a quota that goes are looked at again, and only they."""
    for free in (
        lambda w: w.snapshot.on_quota(Change(quota(mem=1), quota(mem=9000))),
        lambda w: w.snapshot.on_quota(Change(quota(mem=1), None)),
        lambda w: w.snapshot.ledger.release("uid-on-a"),
    ):
        world = ExplainWorld(make_node("n", device("a")))
        world.use("n", "a", 100)
        world.snapshot.on_quota(Change(None, quota(mem=1050)))
        pod = world.add("p", container(gpu=1, mem=1000))
        assert not world.filter(pod).node_names
        world.waker.look()
        world.time += 5
        world.waker.look()
        assert world.woken == []
        free(world)
        world.waker.look()
        world.time += 5
        world.waker.look()
        assert world.woken == ["/api/v1/namespaces/default/pods/p/status"]


def test_explained():
    """The card's reason, what would help, and how the quota stands."""
    world = ExplainWorld(make_node("n", device("a")))
    world.snapshot.on_quota(Change(None, quota(mem=1000)))
    world.use("n", "a", 600)
    world.filter(world.add("p", container(gpu=1, mem=500)))
    answer = world.explain()
    (card,) = answer.nodes[0].cards
    assert card.reason == "ResourceQuotaNotFit"
    assert "raise the limit" in card.remedy
    (standing,) = answer.quota
    assert (standing.resource, standing.used, standing.limit) == ("nvidia.com/gpumem", 600, 1000)
    assert world.counted() == {"ResourceQuotaNotFit": 1}
    assert "a ResourceQuotaNotFit" in world.events[0]["message"]


def test_metrics():
    """HAMi's series; the limit only where there is one."""
    snapshot, registry = Snapshot(NVIDIA), CollectorRegistry()
    registry.register(ClusterCollector(snapshot))
    snapshot.on_quota(Change(None, quota(mem=1000)))
    slots = ((GrantedDevice("a", "NVIDIA", 600, 30),),)
    snapshot.hold(Kind.GRANT, make_pod("q"), "n", slots)
    memory = {"zone": "vGPU", "namespace": "default", "quota_name": "nvidia.com/gpumem"}
    cores = {**memory, "quota_name": "nvidia.com/gpucores"}
    get = registry.get_sample_value
    assert get("hami_resource_quota_used", {**memory, "limit": "1000"}) == 600
    assert get("hami_resource_quota_limit", memory) == 1000
    assert get("hami_resource_quota_used", {**cores, "limit": "0"}) == 30
    assert get("hami_resource_quota_limit", cores) is None


@pytest.mark.parametrize("used", ["0", "250"])
def test_usage_is_not_read_from_the_object(used):
    """The quota's own status says nothing of these names."""
    snapshot = Snapshot(NVIDIA)
    spec = QuotaSpec({MEM: "1000", "requests.nvidia.com/gpu": used, "limits.cpu": "500m"})
    meta = Metadata(name="q", namespace="default", uid="u")
    snapshot.on_quota(Change(None, ResourceQuota(meta, spec)))
    assert [s.used for s in snapshot.budget.standings(snapshot.families)] == [0]


STEP = st.tuples(
    st.sampled_from("pqrs"),
    st.sampled_from([*Kind, None]),
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 900), st.integers(0, 100)), max_size=3
    ),
)


@given(st.lists(STEP, max_size=20))
def test_the_account_is_that_of_the_holdings(steps):
    """Whatever comes and goes, in any order and repeatedly."""
    snapshot = Snapshot(NVIDIA)
    for name, kind, devices in steps:
        if kind is None:
            snapshot.ledger.release(f"uid-{name}")
        else:
            slots = (tuple(GrantedDevice(u, "NVIDIA", m, c) for u, m, c in devices),)
            snapshot.hold(kind, make_pod(name), "n", slots)
    held = [h for h in snapshot.ledger.holdings.values() if h.kind is not Kind.CLAIM]
    expected = {
        "nvidia.com/gpumem": sum(s.memory_mib for h in held for s in h.taken.values()),
        "nvidia.com/gpucores": sum(s.cores for h in held for s in h.taken.values()),
    }
    standings = {s.resource: s.used for s in snapshot.budget.standings(snapshot.families)}
    assert standings == {name: value for name, value in expected.items() if value}


def test_an_empty_budget():
    """No quota, no limit, and no version that could change."""
    budget = Budget()
    assert budget.version("default") == -1
    assert list(budget.standings((NVIDIA,))) == []
