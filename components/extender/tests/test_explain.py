"""Why a pod is where it is."""

import pytest
from explain_world import ExplainWorld
from extender_kit import container, device, make_node, make_pod
from mig_cards import mig_device

from hami_extender.explain import LEFT_OUT, UnknownPod
from hami_extender.render import pod_text
from hami_extender.usage import Kind
from hamikit.cluster import ApiError, Unreachable
from hamikit.codec import GrantedDevice
from hamikit.informer import Change
from hamikit.instances import Placement as Place
from hamikit.mig import BlockedPlacement, encode_blocked


def test_a_waiting_pod():
    """Per node and card: asked, free, the rule that said no, what would help, who holds it."""
    world = ExplainWorld(make_node("n", device("GPU-a"), device("GPU-b", 1, health=False)))
    world.use("n", "GPU-a", 7000)
    pod = world.add("p", container("main", gpu=1, mem=3000, cores=30))
    world.filter(pod)
    world.time = 2.5
    answer = world.explain()
    assert (answer.state, answer.uid) == ("waiting", "uid-p")
    assert answer.text == "none of 1 nodes has room for its devices"
    assert answer.last_attempt_s == 2.5
    assert answer.reasons == {"1/2 CardInsufficientMemory, 1/2 CardNotHealth": 1}
    (node,) = answer.nodes
    assert (node.container, node.asked) == ("main", "1 x (3000 MiB, 30% cores)")
    first, second = node.cards
    assert (first.asked_memory_mib, first.free_memory_mib, first.memory_mib) == (3000, 1000, 8000)
    assert (first.asked_cores, first.free_cores, first.free_slots) == (30, 70, 9)
    assert first.reason == "CardInsufficientMemory"
    assert first.remedy == "ask for at most 1000 MiB, or wait until 2000 MiB more are free"
    assert first.held_by == ("default/on-GPU-a",)
    assert (second.reason, second.held_by) == ("CardNotHealth", ())
    assert "device plugin" in second.remedy


def test_what_its_own_containers_take_is_not_free():
    """The second container is told what the first leaves, init containers aside."""
    world = ExplainWorld(make_node("n", device("a")))
    world.add(
        "p",
        container("one", gpu=1, mem=5000, cores=10),
        container("two", gpu=1, mem=4000),
        init=(container("setup", gpu=1, mem=6000),),
    )
    (node,) = world.explain().nodes
    assert node.container == "two"
    assert (node.cards[0].free_memory_mib, node.cards[0].free_cores) == (3000, 90)


def test_room_that_kube_scheduler_does_not_offer():
    """A node with room, left out at the last attempt, is named with the reason why."""
    world = ExplainWorld(make_node("full", device("a", devmem=10)), make_node("free", device("b")))
    pod = world.add("p")
    before = world.explain()
    assert "has not asked yet" in before.text
    assert before.nodes[0].detail == ""
    world.filter(pod, ["full"])
    answer = world.explain()
    world.snapshot.on_node(Change(None, make_node("full", device("a"))))
    assert {node.node: node.detail for node in world.explain().nodes} == {
        "free": LEFT_OUT,
        "full": "",
    }
    assert (answer.fitting, answer.refused) == (1, 1)
    assert answer.nodes[0].node == "free"
    assert answer.nodes[0].detail == LEFT_OUT
    assert answer.nodes[1].node == "full"
    assert "own rules leave them out" in answer.text


@pytest.mark.parametrize(
    ("kind", "state", "text"),
    [
        (Kind.CLAIM, "placing", "kube-scheduler is about to bind it to n"),
        (Kind.FLIGHT, "placing", "is being bound to n"),
        (Kind.GRANT, "placed", "is bound to n"),
    ],
)
def test_a_pod_with_devices(kind, state, text):
    """Where it is, how sure that is, and what it has."""
    world = ExplainWorld(make_node("n", device("a")))
    pod = world.add("p")
    slots = ((GrantedDevice("a", "NVIDIA", 1000, 5),),)
    world.snapshot.hold(kind, pod, "n", slots)
    answer = world.explain()
    assert (answer.state, answer.text, answer.node) == (state, text, "n")
    assert [(d.container, d.uuid, d.memory_mib, d.cores) for d in answer.devices] == [
        ("main", "a", 1000, 5)
    ]


def test_grants_that_went_wrong():
    """An unreadable grant and a plugin that failed are said."""
    world = ExplainWorld(make_node("n", device("a")))
    world.add("p", node="n", POD_DEVICES_ALLOCATED="a,b:", POD_BIND_PHASE="failed")
    assert world.explain().text == (
        "is bound to n; its grant cannot be read, so this node takes no pods until it is gone; "
        "the node's plugin could not hand its devices out"
    )


@pytest.mark.parametrize(
    ("pod", "state", "said"),
    [
        (make_pod("p", {"name": "c"}), "not ours", "asks for none of our devices"),
        (make_pod("p", labelled=False), "not ours", "PodNotAdmittedByWebhook"),
        (make_pod("p", container(gpu=1, cores=300)), "invalid", "gpucores is '300'"),
        (make_pod("p", phase="Succeeded"), "finished", "has ended (Succeeded)"),
        (make_pod("p"), "waiting", "none of 0 nodes"),
    ],
    ids=["no device", "no label", "bad request", "finished", "the watch is late"],
)
def test_pods_that_no_watch_shows(pod, state, said):
    """They are read from the API server, and told why they are none of ours."""
    world = ExplainWorld()
    world.stored["p"] = pod
    answer = world.explain()
    assert answer.state == state
    assert said in answer.text


def test_other_schedulers_and_bound_without_us():
    """Pods that our scheduler does not place."""
    world = ExplainWorld(make_node("n", device("a")))
    foreign = make_pod("p")
    pod = world.add("p", node="n")
    assert world.explain().text == "runs on n without devices of ours"
    object_ = {"spec": {"schedulerName": "volcano", "containers": []}}
    world.stored["q"] = type(pod)(
        metadata=foreign.metadata,
        spec=type(pod.spec)(containers=foreign.spec.containers, scheduler_name="volcano"),
    )
    assert object_["spec"]["schedulerName"] in world.explain("q").text


def test_a_name_in_use_again():
    """The pod that lives is explained, not its namesake that still ends."""
    world = ExplainWorld(make_node("n", device("a")))
    ending = make_pod("p", uid="old", node="n", POD_DEVICES_ALLOCATED="a,NVIDIA,8000,0:;")
    meta = type(ending.metadata)(
        name="p",
        namespace="default",
        uid="old",
        annotations=ending.metadata.annotations,
        deletion_timestamp="2026-08-21T06:20:39Z",
    )
    old = type(ending)(metadata=meta, spec=ending.spec, status=ending.status)
    world.snapshot.on_pod(type("C", (), {"present": old, "after": old})())
    world.add("p", uid="new")
    assert world.explain().uid == "new"


def test_unknown_pods_and_a_deaf_api_server():
    """What is not there is an error of its own; what cannot be said is passed on."""
    world = ExplainWorld()
    with pytest.raises(UnknownPod, match="there is no pod default/p"):
        world.explain()
    for error in (ApiError(403, "Forbidden", "no"), Unreachable("gone")):
        world.stored["p"] = error
        with pytest.raises(type(error)):
            world.explain()


def test_all_that_wait():
    """Sorted, with their reasons, without nodes in full; placed ones are left out."""
    world = ExplainWorld(make_node("n", device("a", devmem=10)))
    for name in ("q", "p"):
        world.add(name)
    world.add("r", node="n", POD_DEVICES_ALLOCATED="a,NVIDIA,1,0:;")
    answers = world.explainer.waiting()
    assert [answer.pod for answer in answers] == ["default/p", "default/q"]
    assert answers[0].reasons == {"1/1 CardInsufficientMemory": 1}
    assert answers[0].nodes == ()


def test_explaining_changes_nothing():
    """Neither holdings nor versions move."""
    world = ExplainWorld(make_node("n", device("a")))
    world.add("p")
    before = (dict(world.snapshot.ledger.holdings), world.snapshot.ledger.nodes["n"].version)
    world.explain()
    world.explainer.waiting()
    world.simulator.simulate(make_pod("q"))
    assert before == (
        dict(world.snapshot.ledger.holdings),
        world.snapshot.ledger.nodes["n"].version,
    )


def test_where_mig_manager_can_make_no_instance():
    """Slices and reason of each such place stand with the card."""
    blocked = [
        BlockedPlacement("a", "3g.20gb", Place(4, 4), "MadeByHand", 7),
        BlockedPlacement("a", "1g.5gb", Place(0, 1), "DriverError", 7),
    ]
    world = ExplainWorld(make_node("n", mig_device("a"), NODE_MIG_BLOCKED=encode_blocked(blocked)))
    world.add("p", container(gpu=1, mem=40000))
    (node,) = world.explain().nodes
    assert node.reason == "1/1 CardMigTopologyInfeasible"
    assert node.cards[0].blocked == ("slice 0: DriverError", "slices 4-7: MadeByHand")
    text = pod_text(world.explain())
    assert "no MIG instance on slice 0: DriverError, slices 4-7: MadeByHand" in text
