"""Pods on nodes with cards that MIG divides."""

import json

import pytest
from extender_kit import container, device, make_node, make_pod
from hypothesis import given, settings
from hypothesis import strategies as st
from mig_cards import A30, A100_40, mig_device, profile
from msgspec import structs
from prometheus_client import CollectorRegistry, generate_latest

from hami_extender.answers import answer_of
from hami_extender.flights import Flights
from hami_extender.grants import grant_annotations
from hami_extender.legacy import FORMER, instances
from hami_extender.metrics import ClusterCollector
from hami_extender.placement import Placement, partitions, place
from hami_extender.question import Headroom, Part, Question, question_of
from hami_extender.snapshot import Snapshot
from hami_extender.state import as_json, take
from hami_extender.usage import Kind
from hamikit import names
from hamikit.codec import encode_grant
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.instances import Placement as Place
from hamikit.legacy import WithLegacy
from hamikit.mig import BlockedPlacement, decode_mig_allocations, encode_blocked

FOUR = (
    profile("1g.24gb", 24192, 25, 1, 0, 1, 2, 3, size=1),
    profile("2g.48gb", 48512, 50, 2, 0, 2, size=2),
    profile("4g.96gb", 97280, 100, 4, 0, size=4),
)
"""A card of four slices, such as an RTX PRO 6000."""


class World:
    """One node; pods come and go as binds and the API server make them."""

    def __init__(self, *devices, **annotations):
        self.snapshot = Snapshot(NVIDIA)
        self.snapshot.on_node(Change(None, make_node("n", *devices, **annotations)))

    def ask(self, pod, policy="binpack"):
        """What the node says; the table of all nodes has to agree."""
        question = question_of(pod, [NVIDIA], policy)
        verdict = place(self.snapshot.ledger.nodes["n"], question)
        table = self.snapshot.verdicts.table(question)
        if isinstance(verdict, Placement):
            assert table.best({"n"}, "binpack", 1) == ["n"]
        else:
            assert table.refusals(["n"]) == {"n": verdict}
        return verdict

    def bind(self, name, *containers, **settings):
        """Place a pod for good, as the watch will show it; its instances, or the reason."""
        pod = make_pod(name, *containers, **settings)
        verdict = self.ask(pod)
        if not isinstance(verdict, Placement):
            return verdict.reason
        self.snapshot.hold(Kind.FLIGHT, pod, "n", verdict.slots)
        written = grant_annotations([NVIDIA], pod, "n", verdict.slots, 7)
        shown = make_pod(name, *containers, node="n", **settings)
        shown.metadata.annotations.update(written)
        self.snapshot.on_pod(Change(None, shown))
        assert self.snapshot.ledger.holdings[f"uid-{name}"].kind is Kind.GRANT
        records = decode_mig_allocations(written.get(names.POD_MIG_ALLOCATIONS, ""))
        return [(r.profile, r.placement.start) for r in records]

    def end(self, name):
        """A pod is gone."""
        self.snapshot.on_pod(Change(make_pod(name, node="n"), None))


def one(memory, **more):
    """A container with one device."""
    return container(gpu=1, mem=memory, **more)


def test_the_grant_is_the_card_with_what_the_profile_has():
    """HAMi's two records: the card with the profile's memory and cores, and the instance."""
    pod = make_pod("p", container("plain"), one(9000))
    verdict = place(
        World(mig_device("GPU-a")).snapshot.ledger.nodes["n"], question_of(pod, [NVIDIA], "")
    )
    assert encode_grant(verdict.slots) == ";GPU-a,NVIDIA,9984,29:;"
    written = grant_annotations([NVIDIA], pod, "n", verdict.slots, 7)
    assert written[names.POD_DEVICES_ALLOCATED] == ";GPU-a,NVIDIA,9984,29:;"
    assert written[names.POD_MIG_ALLOCATIONS] == (
        '[{"containerIndex":1,"deviceIndex":0,"gpuUUID":"GPU-a","profile":"2g.10gb",'
        '"placement":{"start":0,"size":2}}]'
    )


def test_hamis_acceptance_on_an_a100():
    """Three 2g and a 1g fill it; another 1g waits until a 2g is given back."""
    world = World(mig_device("GPU-a"))
    assert world.bind("s", one(4500)) == [("1g.5gb", 6)]
    twos = [world.bind(f"d{i}", one(9500)) for i in range(3)]
    assert sorted(twos) == [[("2g.10gb", 0)], [("2g.10gb", 2)], [("2g.10gb", 4)]]
    assert world.bind("late", one(4500)) == "1/1 CardMigTopologyInfeasible"
    world.end("d1")
    assert world.bind("late", one(4500))[0][0] == "1g.5gb"


def test_hamis_acceptance_with_large_ones():
    """Two 3g leave nothing; 3g, 2g and two 1g fill a card; what ends can be made again."""
    world = World(mig_device("GPU-a"))
    assert [world.bind(f"t{i}", one(19000)) for i in range(2)] == [
        [("3g.20gb", 4)],
        [("3g.20gb", 0)],
    ]
    assert world.bind("s", one(4500)) == "1/1 CardInsufficientMemory"
    # The second, at the start of the card: slices 0 to 3 can be cut in any way.
    world.end("t1")
    assert world.bind("d", one(9500))[0][0] == "2g.10gb"
    assert [world.bind(f"s{i}", one(4500))[0][0] for i in range(2)] == ["1g.5gb"] * 2
    assert world.bind("more", one(4500)) == "1/1 CardInsufficientMemory"
    assert world.bind("more", one(1000)) == "1/1 CardMigTopologyInfeasible"


def test_hamis_acceptance_with_seven_and_with_four():
    """Seven 1g and not eight; on a card of four slices the whole one keeps all others out."""
    world = World(mig_device("GPU-a"))
    assert {world.bind(f"s{i}", one(4500))[0] for i in range(7)} == {
        ("1g.5gb", start) for start in range(7)
    }
    assert "CardTimeSlicingExhausted" in world.bind("eighth", one(4500))
    world = World(mig_device("GPU-b", profiles=FOUR, memory=97887))
    assert world.bind("whole", one(60000)) == [("4g.96gb", 0)]
    assert world.bind("s", one(8000)) == "1/1 CardInsufficientMemory"
    world.end("whole")
    assert [world.bind(f"x{i}", one(m))[0][0] for i, m in enumerate((8000, 30000, 8000))] == [
        "1g.24gb", "2g.48gb", "1g.24gb",
    ]  # fmt: skip


def test_one_card_can_be_several_devices():
    """Three of 9500 MiB are three instances of one card; a fourth has to be another's."""
    world = World(mig_device("GPU-a"))
    assert len(world.bind("p", container(gpu=3, mem=9500))) == 3
    assert World(mig_device("GPU-a")).bind("p", container(gpu=4, mem=9500)) == (
        "1/1 CardMigTopologyInfeasible, 3/1 AllocatedCardsInsufficientRequest"
    )
    two = World(mig_device("GPU-a"), mig_device("GPU-b", 1))
    assert len(two.bind("p", container(gpu=4, mem=9500))) == 4


def test_whoever_asks_for_the_whole_card_gets_the_largest_profile():
    """It has a little less than the card announces (HAMi defect 31)."""
    world = World(mig_device("GPU-a"))
    assert world.bind("p", container(gpu=1, percent=100, cores=100)) == [("7g.40gb", 0)]
    world.end("p")
    assert world.bind("s", one(4500)) == [("1g.5gb", 6)]
    assert world.bind("p", container(gpu=1, percent=50, cores=100)) == (
        "1/1 ExclusiveDeviceAllocateConflict"
    )


def test_cores_are_those_of_the_profile():
    """Seven times 15 percent are more than the card has, and all the same there is room."""
    world = World(mig_device("GPU-a"))
    for number in range(7):
        assert world.bind(f"s{number}", one(4500, cores=15)) != []
    assert world.snapshot.ledger.nodes["n"].used["GPU-a"].cores == 105


def test_a_pod_says_which_way_of_sharing_it_wants():
    """Where both kinds of card are: any, those that MIG divides, or those that it does not."""
    world = World(mig_device("GPU-m"), device("GPU-h", 1, devmem=40960))
    for mode, card in (("mig", "GPU-m"), ("hami-core", "GPU-h")):
        pod = make_pod("p", one(4500), POD_VGPU_MODE=mode)
        assert world.ask(pod).slots[0][0].uuid == card
    assert world.ask(make_pod("p", one(4500), POD_VGPU_MODE="mps")).reason == "2/2 CardTypeMismatch"
    both = world.ask(make_pod("p", container(gpu=2, mem=4500), POD_VGPU_MODE="mig,hami-core"))
    assert [d.uuid for d in both.slots[0]] == ["GPU-m", "GPU-m"]
    assert world.bind("h", one(4500), POD_VGPU_MODE="hami-core") == []


def test_a_container_gets_one_kind():
    """Instances or shares, whichever has enough; where neither has, both are counted."""
    world = World(mig_device("GPU-m"), device("GPU-h", 1), device("GPU-i", 2))
    assert world.bind("whole", one(30000), POD_VGPU_MODE="mig") == [("7g.40gb", 0)]
    verdict = world.ask(make_pod("p", container(gpu=2, mem=1000)))
    assert {d.uuid for d in verdict.slots[0]} == {"GPU-h", "GPU-i"}
    world = World(mig_device("GPU-m"), device("GPU-h", 1, devmem=40960))
    # Slices 0 to 3 are left, which is one of 20 GB: an instance and a share would be two devices.
    assert world.bind("half", one(19000), POD_VGPU_MODE="mig") == [("3g.20gb", 4)]
    assert world.bind("p", container(gpu=2, mem=15000)) == (
        "1/2 CardMigTopologyInfeasible, 2/2 AllocatedCardsInsufficientRequest"
    )


def test_the_same_pod_lands_on_either_kind():
    """Without a word about the mode: on whichever has room, and an instance is large enough."""
    asked, found = one(8000), []
    world = World(mig_device("GPU-m"), device("GPU-h", 1, devmem=40960))
    while isinstance(verdict := world.ask(make_pod(f"p{len(found)}", asked)), Placement):
        world.bind(f"p{len(found)}", asked)
        ((one_device,),) = verdict.slots
        found.append((one_device.uuid, one_device.memory_mib))
    # Three places of 2g.10gb, and five times 8000 MiB.
    assert sorted(found) == [("GPU-h", 8000)] * 5 + [("GPU-m", 9984)] * 3
    for mode, left in (("mig", "GPU-h"), ("hami-core", "GPU-m")):
        gone = next(n for n, (uuid, _) in enumerate(found) if uuid == left)
        world.end(f"p{gone}")
        refused = world.ask(make_pod("q", asked, POD_VGPU_MODE=mode))
        assert not isinstance(refused, Placement), "room of the other kind only"
        assert world.ask(make_pod("q", asked)).slots[0][0].uuid == left
        world.bind(f"p{gone}", asked)


@settings(max_examples=60)
@given(st.data())
def test_no_container_has_both_kinds(data):
    """Whatever is on the cards and however they are chosen."""
    world = World(mig_device("GPU-m"), mig_device("GPU-n", 1), device("GPU-h", 2, numa=1),
                  device("GPU-i", 3))  # fmt: skip
    policy = data.draw(st.sampled_from(("binpack", "spread", "topology-aware")))
    bind = data.draw(st.sampled_from(("true", "false")))
    for number in range(data.draw(st.integers(1, 8))):
        asked = container(gpu=data.draw(st.integers(1, 4)), mem=data.draw(st.integers(1, 20000)))
        pod = make_pod(f"p{number}", asked, POD_GPU_POLICY=policy, POD_NUMA_BIND=bind)
        verdict = world.ask(pod)
        if isinstance(verdict, Placement):
            world.snapshot.hold(Kind.FLIGHT, pod, "n", verdict.slots)
            assert len({d.instance is None for d in verdict.slots[0]}) == 1


def test_binpack_takes_the_card_that_loses_least():
    """Not the fullest one, where that would break a larger free range; spread knows nothing of it.

    GPU-a has slices 0 to 3 free, in one piece; GPU-b, with less taken, only odd ones.
    """
    odd = [BlockedPlacement("GPU-b", "1g.5gb", Place(n, 1), "MadeByHand", 7) for n in (1, 3, 4, 6)]
    found = {}
    for policy in ("binpack", "spread"):
        world = World(mig_device("GPU-a", profiles=A100_40), mig_device("GPU-b", 1, A100_40),
                      NODE_MIG_BLOCKED=encode_blocked(odd))  # fmt: skip
        assert world.bind("half", one(19000), POD_USE_UUID="GPU-a") == [("3g.20gb", 4)]
        pod = make_pod("p", one(4500), POD_GPU_POLICY=policy)
        found[policy] = world.ask(pod).slots[0][0].uuid
    assert found == {"binpack": "GPU-b", "spread": "GPU-b"}
    for policy, card in (("binpack", "GPU-a"), ("spread", "GPU-b")):
        world = World(mig_device("GPU-a"), mig_device("GPU-b", 1))
        world.bind("first", one(4500), POD_USE_UUID="GPU-a")
        pod = make_pod("p", one(4500), POD_GPU_POLICY=policy)
        assert world.ask(pod).slots[0][0].uuid == card


def test_with_numa_bind_the_numa_nodes_keep_their_order():
    """Or a run of cards of one of them could be torn apart."""
    second = structs.replace(mig_device("GPU-b", 1), numa=1)
    for bind, card in (("true", "GPU-a"), ("false", "GPU-b")):
        world = World(mig_device("GPU-a"), second)
        world.bind("first", one(4500), POD_USE_UUID="GPU-b")
        pod = make_pod("p", one(4500), POD_GPU_POLICY="binpack", POD_NUMA_BIND=bind)
        assert world.ask(pod).slots[0][0].uuid == card


@settings(max_examples=60)
@given(st.data())
def test_whichever_card_binpack_takes_no_other_loses_less(data):
    """Of those that MIG divides; a card that it does not keeps its turn among them."""
    world = World(*(mig_device(f"GPU-{n}", n, A100_40) for n in range(3)), device("GPU-h", 3))
    wanted = st.tuples(st.sampled_from((4000, 9000, 19000, 40000)), st.sampled_from("0123"))
    for number, (memory, card) in enumerate(data.draw(st.lists(wanted, max_size=9))):
        world.bind(f"p{number}", one(memory), POD_USE_UUID=f"GPU-{card}")
    memory = data.draw(st.sampled_from((4000, 9000, 19000, 40000)))
    pod = make_pod("p", one(memory), POD_GPU_POLICY="binpack", POD_VGPU_MODE="mig")
    state = world.snapshot.ledger.nodes["n"]
    losses = {
        f"GPU-{position}": partition.loss(memory)
        for position, partition in partitions(state, state.facts.offers[0]).items()
    }
    able = [lost for lost in losses.values() if lost is not None]
    verdict = world.ask(pod)
    if able:
        assert losses[verdict.slots[0][0].uuid] == min(able)
    else:
        assert not isinstance(verdict, Placement)


def test_more_devices_than_cards():
    """Only where a card may be several of them."""
    world = World(mig_device("GPU-m"))
    asked = container(gpu=2, mem=4500)
    assert (
        world.ask(make_pod("p", asked, POD_VGPU_MODE="hami-core")).reason
        == "NodeInsufficientDevice"
    )
    assert isinstance(world.ask(make_pod("p", asked)), Placement)
    assert World(device("GPU-h")).bind("p", asked) == "NodeInsufficientDevice"


def test_a_card_that_does_not_say_what_can_be_made_of_it():
    """It is never handed out, as a slice or as a whole."""
    world = World(mig_device("GPU-m", profiles=()))
    assert world.bind("p", one(4500)) == "1/1 CardMigTopologyInfeasible"


def test_init_containers_keep_their_instance():
    """It stays as long as the pod: who comes later has the same one, or one beside it."""
    world = World(mig_device("GPU-a", profiles=A30, memory=24576))
    small, large = one(5000), one(11000)
    found = world.bind("same", small, init=(container("i", gpu=1, mem=5000),))
    assert found[0] == found[1]
    world.end("same")
    found = world.bind("beside", large, init=(container("i", gpu=1, mem=5000),))
    assert [profile_ for profile_, _ in found] == ["1g.6gb", "2g.12gb"]
    assert world.bind("rest", one(5000))[0][0] == "1g.6gb"
    assert world.bind("none", one(5000)) == "1/1 CardMigTopologyInfeasible"


def test_a_sidecar_and_its_app_have_one_each():
    """Both run at the same time."""
    world = World(mig_device("GPU-a", profiles=A30, memory=24576))
    sidecar = {**container("s", gpu=1, mem=5000), "restartPolicy": "Always"}
    found = world.bind("p", one(5000), init=(sidecar,))
    assert found[0] != found[1]


def test_quota_counts_the_profile():
    """9984 MiB are held by whoever asks for 9000 (HAMi defect 8.31)."""
    world, pod = World(mig_device("GPU-a")), make_pod("p", one(9000))
    question = question_of(pod, [NVIDIA], "")
    state = world.snapshot.ledger.nodes["n"]
    for limit, fits in ((9984, True), (9983, False)):
        part = Part.of(question.parts[0].shape, "", NVIDIA, Headroom(limit))
        verdict = place(state, Question((part,)))
        assert isinstance(verdict, Placement) is fits
    assert verdict.reason == "1/1 ResourceQuotaNotFit"


@pytest.mark.parametrize("record", ["", "no JSON", '[{"containerIndex":0}]', json.dumps([{
    "containerIndex": 0, "deviceIndex": 0, "gpuUUID": "GPU-other", "profile": "1g.5gb",
    "placement": {"start": 0, "size": 1}}])])  # fmt: skip
def test_who_holds_what_nobody_knows_closes_the_card_and_no_other(record):
    """An instance might be anywhere on it; a record of other cards changes nothing there."""
    world = World(mig_device("GPU-a"), mig_device("GPU-other", 1), device("GPU-h", 2))
    shown = make_pod("q", one(4500), node="n", POD_DEVICES_ALLOCATED="GPU-a,NVIDIA,4864,15:;")
    shown.metadata.annotations[names.POD_MIG_ALLOCATIONS] = record
    world.snapshot.on_pod(Change(None, shown))
    pod = make_pod("p", one(4500), POD_USE_UUID="GPU-a")
    assert world.ask(pod).reason == "1/3 CardNotHealth, 2/3 CardUuidMismatch"
    assert world.bind(
        "whole", container(gpu=1, percent=100, cores=100), POD_USE_UUID="GPU-other"
    ) == [("7g.40gb", 0)]
    world.end("q")
    assert isinstance(world.ask(pod), Placement)


def test_a_record_that_was_left_behind_is_taken_off():
    """Else it would speak of instances of a card that the pod has not (HAMi defect 8.21)."""
    world, pod = World(device("GPU-h")), make_pod("p", one(4500), POD_MIG_ALLOCATIONS="[]")
    written = grant_annotations([NVIDIA], pod, "n", world.ask(pod).slots, 7)
    assert written[names.POD_MIG_ALLOCATIONS] == ""
    plain = grant_annotations([NVIDIA], make_pod("p", one(1)), "n", world.ask(pod).slots, 7)
    assert names.POD_MIG_ALLOCATIONS not in plain


def test_places_beyond_reason_are_not_looked_at():
    """An annotation that was made to be slow, or that speaks of places before the first."""
    many = profile("1g.5gb", 4864, 15, 1, *range(200), size=1)
    below = profile("1g.5gb", 4864, 15, 1, -1, size=1)
    empty = profile("1g.5gb", 4864, 15, 1, 0, size=0)
    for strange in (many, below, empty):
        world = World(mig_device("GPU-a", profiles=(strange,)))
        assert world.bind("p", one(4500)) == "1/1 CardMigTopologyInfeasible"
    world = World(device("GPU-h", mig_profiles=A30))
    assert world.bind("p", one(4500)) == []


def test_explain_says_what_could_be_made():
    """The largest instance that the free places allow, and when there is none to wait."""
    world = World(mig_device("GPU-a"))
    world.bind("t", one(19000))
    world.bind("s", one(4500))
    pod = make_pod("p", one(12000))
    verdict, state = world.ask(pod), world.snapshot.ledger.nodes["n"]
    answer = answer_of(state, "n", question_of(pod, [NVIDIA], ""), verdict, ["main"])
    wait = "wait until an instance of this card is given back"
    assert answer.cards[0].reason == "CardMigTopologyInfeasible"
    assert answer.cards[0].remedy == f"ask for at most 9984 MiB, or {wait}"
    for number in range(2):
        world.bind(f"x{number}", one(9500 if number == 0 else 4500))
    pod = make_pod("p", one(300))
    verdict = world.ask(pod)
    answer = answer_of(state, "n", question_of(pod, [NVIDIA], ""), verdict, ["main"])
    assert answer.cards[0].remedy == wait


def test_topology_counts_no_more_instances_than_are_asked_for():
    """However many could be made (HAMi defect 8.8)."""
    world = World(*(mig_device(f"GPU-{n}", n) for n in range(8)), NODE_PAIR_SCORES="[]")
    pod = make_pod("p", container(gpu=2, mem=4500), POD_GPU_POLICY="topology-aware")
    assert len(world.ask(pod).slots[0]) == 2


ASKED = st.tuples(
    st.integers(1, 3), st.sampled_from([4000, 9000, 19000, 40000]), st.booleans(), st.booleans()
)


@settings(max_examples=50)
@given(st.lists(st.tuples(ASKED, st.booleans()), max_size=12))
def test_instances_never_overlap(steps):
    """Pods of any shape, in any order of coming and going: each slice of a card is one pod's."""
    world = World(mig_device("GPU-a", profiles=A100_40), mig_device("GPU-b", 1), device("GPU-h", 2))
    for number, ((count, memory, init, sidecar), ends) in enumerate(steps):
        first = container("first", gpu=1, mem=4000)
        if sidecar:
            first = {**first, "restartPolicy": "Always"}
        name = f"p{number}"
        world.bind(name, container(gpu=count, mem=memory), init=(first,) if init else ())
        if ends:
            world.end(name)
        owner = {}
        for uid, holding in world.snapshot.ledger.holdings.items():
            for device_ in (d for slot in holding.slots for d in slot if d.instance):
                place_ = device_.instance.placement
                for slice_ in range(place_.start, place_.start + place_.size):
                    assert owner.setdefault((device_.uuid, slice_), (uid, place_)) == (uid, place_)


def test_free_places_are_told():
    """By card and profile, without what pods have and what mig-manager blocks."""
    blocked = [BlockedPlacement("GPU-a", "1g.5gb", Place(0, 1), "MadeByHand", 7)]
    world = World(mig_device("GPU-a"), device("GPU-h", 1), NODE_MIG_BLOCKED=encode_blocked(blocked))
    registry = CollectorRegistry()
    registry.register(ClusterCollector(world.snapshot))

    def told():
        samples = [s for family in registry.collect() for s in family.samples]
        free = [s for s in samples if s.name == "hami_extender_mig_free_placements"]
        assert {(s.labels["node"], s.labels["device_uuid"]) for s in free} <= {("n", "GPU-a")}
        return {s.labels["profile"]: s.value for s in free}

    assert told() == {"1g.5gb": 6, "2g.10gb": 2, "3g.20gb": 1, "7g.40gb": 0}
    assert world.bind("p", one(9000)) == [("2g.10gb", 2)]
    assert told() == {"1g.5gb": 4, "2g.10gb": 1, "3g.20gb": 1, "7g.40gb": 0}
    unknown = make_pod("u", one(9000), node="n", POD_DEVICES_ALLOCATED="GPU-a,NVIDIA,9984,29:;")
    world.snapshot.on_pod(Change(None, unknown))
    assert told() == {}


def test_an_instance_is_known_once_it_is_made():
    """The plugin completes the record: the metric tells, and the grant is the one it was."""
    world, registry = World(mig_device("GPU-a")), CollectorRegistry()
    registry.register(WithLegacy(ClusterCollector(world.snapshot), FORMER, instances))
    world.bind("p", one(9000))
    name, former = "hami_node_gpu_mig_instance_info", "nodeGPUMigInstance"
    assert f"{name}{{" not in generate_latest(registry).decode()
    made = [{
        "containerIndex": 0, "deviceIndex": 0, "gpuUUID": "GPU-a", "profile": "2g.10gb",
        "placement": {"start": 0, "size": 2},
        "migUUID": "MIG-1", "gpuInstanceID": 3, "computeInstanceID": 0,
    }]  # fmt: skip
    shown = make_pod("p", one(9000), node="n", POD_DEVICES_ALLOCATED="GPU-a,NVIDIA,9984,29:;")
    shown.metadata.annotations[names.POD_MIG_ALLOCATIONS] = json.dumps(made)
    world.snapshot.on_pod(Change(None, shown))
    labels = {
        "zone": "vGPU", "node": "n", "device_uuid": "GPU-a", "device_index": "0",
        "mig_uuid": "MIG-1", "profile": "2g.10gb", "gpu_instance_id": "3",
        "compute_instance_id": "0", "placement_start": "0", "placement_size": "2",
    }  # fmt: skip
    assert registry.get_sample_value(name, labels) == 1
    old = {"zone": "vGPU", "nodeid": "n", "deviceuuid": "GPU-a", "deviceidx": "0"}
    assert registry.get_sample_value(former, {**old, "migname": "2g.10gb-3"}) == 1
    view = as_json(take(world.snapshot, Flights(world.snapshot, None), lambda: ""))
    assert view["pods"][0]["instances"] == [
        {"uuid": "GPU-a", "profile": "2g.10gb", "start": 0, "size": 2, "mig_uuid": "MIG-1"}
    ]
    # Nobody makes another grant of it afterwards.
    moved = [{**made[0], "placement": {"start": 2, "size": 2}}]
    shown.metadata.annotations[names.POD_MIG_ALLOCATIONS] = json.dumps(moved)
    world.snapshot.on_pod(Change(None, shown))
    assert registry.get_sample_value(name, labels) == 1


def test_where_nothing_can_be_made_nothing_is_placed():
    """The node says so: made by hand, or the driver refused; other cards are not concerned."""
    blocked = [
        BlockedPlacement("GPU-a", "3g.20gb", Place(4, 4), "MadeByHand", 7),
        BlockedPlacement("GPU-gone", "7g.40gb", Place(0, 8), "DriverError", 7),
    ]
    world = World(mig_device("GPU-a"), NODE_MIG_BLOCKED=encode_blocked(blocked))
    assert world.bind("whole", one(40000)) == "1/1 CardMigTopologyInfeasible"
    assert world.bind("three", one(19000)) == [("3g.20gb", 0)]
    assert world.bind("small", one(4500)) == "1/1 CardMigTopologyInfeasible"


def test_a_list_of_blocked_places_that_cannot_be_read_blocks_none():
    """Its writer puts it right; a pod that is bound meanwhile comes back."""
    world = World(mig_device("GPU-a"), NODE_MIG_BLOCKED="[[[")
    assert world.bind("whole", one(40000)) == [("7g.40gb", 0)]
