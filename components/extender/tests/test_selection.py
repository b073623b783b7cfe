"""Filter and prioritize: conformance vectors, shortlist, reasons, claims."""

import msgspec
import pytest
from extender_kit import container, device, make_node, make_pod

from hami_extender.selection import CLAIM_S, Policies, Selector
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hami_extender.wire import FilterArgs
from hamikit.codec import GrantedDevice, encode_grant
from hamikit.devices import NVIDIA
from hamikit.informer import Change


class World:
    """A snapshot with a clock, and a selector on it."""

    def __init__(self, *nodes, policies=None, ready=True):
        self.time, self.ready, self.told = 0.0, ready, []
        self.snapshot = Snapshot(NVIDIA, now=lambda: self.time)
        for node in nodes:
            self.snapshot.on_node(Change(None, node))
        self.selector = Selector(
            self.snapshot,
            policies or Policies(),
            missing=lambda: "" if self.ready else "starting, first list not complete",
            refused=lambda pod, _question, refusals: self.told.append((pod.key, set(refusals))),
        )

    def use(self, node, uuid, memory, cores):
        """Somebody's grant on a card."""
        grant = encode_grant([[GrantedDevice(uuid, "NVIDIA", memory, cores)]])
        pod = make_pod(f"user-of-{uuid}", node=node, POD_DEVICES_ALLOCATED=grant)
        self.snapshot.on_pod(Change(None, pod))

    def filter(self, pod, *names):
        """Ask about these nodes, or all."""
        return self.selector.filter(FilterArgs(pod, list(names or self.snapshot.ledger.nodes)))

    def prioritize(self, pod, *names):
        """The same."""
        return self.selector.prioritize(FilterArgs(pod, list(names or self.snapshot.ledger.nodes)))

    def claim(self, pod):
        """Node and grant text of a pod's claim."""
        held = self.snapshot.ledger.holdings.get(pod.metadata.uid)
        return (held.node, held.kind, encode_grant(held.slots)) if held else None


def word(uuid, index):
    """A card whose type is the vendor's word, as in the vectors."""
    return device(uuid, index, type="NVIDIA")


def vectors(**policies):
    """The two nodes of 7.1."""
    world = World(
        make_node("node1", word("device1", 0), word("device2", 1)),
        make_node("node2", word("device3", 0), word("device4", 1)),
        policies=Policies(**policies),
    )
    world.use("node1", "device1", 2000, 25)
    world.use("node2", "device4", 6000, 75)
    return world


@pytest.mark.parametrize(
    ("node_policy", "gpu_policy", "node", "uuid"),
    [
        ("binpack", "binpack", "node2", "device4"),
        ("binpack", "spread", "node2", "device3"),
        ("spread", "binpack", "node1", "device1"),
        ("spread", "spread", "node1", "device2"),
    ],
)
@pytest.mark.parametrize("by_annotation", [True, False])
def test_conformance_7_1(node_policy, gpu_policy, node, uuid, by_annotation):
    """The four policy pairs of HAMi's vectors under `strict`, by flag and by annotation."""
    if by_annotation:
        world = vectors(shortlist=1)
        wishes = {"POD_NODE_POLICY": node_policy, "POD_GPU_POLICY": gpu_policy}
    else:
        world = vectors(node=node_policy, gpu=gpu_policy, shortlist=1)
        wishes = {}
    pod = make_pod("p", container(gpu=1, mem=1000, cores=20), **wishes)
    assert world.filter(pod).node_names == [node]
    assert world.claim(pod) == (node, Kind.CLAIM, f"{uuid},NVIDIA,1000,20:;")


def test_prioritize_repeats_filter_while_nothing_has_changed():
    """Nodes are put in order once a pod; anything that has changed since is seen all the same."""
    world = World(*(make_node(f"n{i}", device(f"c{i}")) for i in range(3)))
    pod = make_pod("p", container(gpu=1, mem=1000))
    nodes = world.filter(pod).node_names
    assert nodes == ["n0", "n1", "n2"]
    assert world.prioritize(pod, *nodes) == {"n0": 10, "n1": 4, "n2": 0}
    nodes = world.filter(pod).node_names
    world.use("n2", "c2", 1000, 10)
    assert world.prioritize(pod, *nodes) == {"n2": 10, "n0": 4, "n1": 0}
    nodes = world.filter(pod).node_names
    assert nodes == ["n2", "n0", "n1"]
    # Other names than filter left, or another pod.
    assert world.prioritize(pod, "n0", "n1") == {"n0": 10, "n1": 0}
    other = make_pod("q", container(gpu=1, mem=1000), POD_NODE_POLICY="spread")
    world.filter(pod)
    assert world.prioritize(other, *nodes) == {"n0": 10, "n1": 4, "n2": 0}


def test_a_pod_that_asks_for_nothing_passes_everywhere():
    """Its nodes come back as they came, ready or not; count 0 asks for nothing."""
    world = World(ready=False)
    pod = make_pod("p", container(gpu=0), labelled=False)
    assert world.filter(pod, "x", "y").node_names == ["x", "y"]
    nodes = msgspec.Raw(b'{"items":[]}')
    assert world.selector.filter(FilterArgs(pod, None, nodes)).nodes is nodes
    assert world.prioritize(pod, "x") == {"x": 0}


def test_before_the_first_lists():
    """An error, so that kube-scheduler comes again soon; nothing is parked."""
    world = World(make_node("n", device("a")), ready=False)
    assert world.filter(make_pod("p")).error == "starting, first list not complete"
    assert world.prioritize(make_pod("p")) == {"n": 0}


def test_a_caller_without_node_cache():
    """What to change is said."""
    world = World()
    assert "nodeCacheCapable" in world.selector.filter(FilterArgs(make_pod("p"))).error


def test_a_malformed_request_is_the_reason_on_every_node():
    """The text says what is wrong; nothing crashes."""
    world = World(make_node("n", device("a")))
    pod = make_pod("p", container(gpu=1, cores=101))
    result = world.filter(pod)
    assert result.node_names == []
    assert (
        "InvalidDeviceRequest: container 'main': nvidia.com/gpucores is '101'"
        in (result.unresolvable["n"])
    )
    assert world.prioritize(pod) == {"n": 0}


def test_a_pod_without_our_label_is_refused():
    """No informer of ours would ever see it."""
    world = World(make_node("n", device("a")))
    result = world.filter(make_pod("p", labelled=False))
    assert result.unresolvable == {"n": "PodNotAdmittedByWebhook"}


def test_where_none_fits_every_node_has_its_reason():
    """Full nodes and hopeless ones are told apart; somebody may explain."""
    world = World(
        make_node("full", device("a", devmem=10)),
        make_node("hami", device("b"), NODE_BINDING="lock"),
        make_node("upgrading", device("c"), NODE_PAUSED="x"),
    )
    result = world.filter(make_pod("p"), "full", "hami", "upgrading", "stranger")
    assert (result.node_names, result.error) == ([], "")
    assert result.failed == {"full": "1/1 CardInsufficientMemory"}
    assert result.unresolvable == {
        "hami": "NodeBindingUnsupported",
        "upgrading": "NodePaused",
        "stranger": "node unregistered",
    }
    assert world.told == [("default/p", {"full", "hami", "upgrading", "stranger"})]


def test_the_shortlist_is_the_best_few():
    """Of ten fitting nodes the three best are left, best first, and no claim is made yet."""
    world = World(
        *(make_node(f"n{i}", device(f"c{i}")) for i in range(10)), policies=Policies(shortlist=3)
    )
    world.use("n7", "c7", 100, 0)
    pod = make_pod("p")
    assert world.filter(pod).node_names == ["n7", "n0", "n1"]
    assert world.claim(pod) is None


def test_a_node_that_the_pod_names_stays_in_the_shortlist():
    """However good others are; where one node is to be left, the best is."""
    nodes = [make_node(f"n{i}", device(f"c{i}", devmem=500 * i)) for i in range(6)]
    value = msgspec.to_builtins(make_pod("p"))
    value["status"]["nominatedNodeName"] = "n5"
    pod = msgspec.convert(value, type(make_pod("p")))
    world = World(*nodes, policies=Policies(shortlist=2))
    assert world.filter(pod).node_names == ["n2", "n3", "n5"]
    assert world.filter(pod, "n2", "n3", "n4").node_names == ["n2", "n3"]
    assert World(*nodes, policies=Policies(shortlist=1)).filter(pod).node_names == ["n2"]
    value["status"]["nominatedNodeName"] = "n1"
    full = msgspec.convert(value, type(make_pod("p")))
    assert world.filter(full).node_names == ["n2", "n3"]


def test_weights_that_are_none_are_the_reason_on_every_node():
    """In HAMi's words."""
    world = World(make_node("n", device("a")))
    result = world.filter(make_pod("p", POD_SCORING_WEIGHTS="slot=1"))
    assert result.unresolvable["n"] == (
        'InvalidDeviceRequest: invalid hami.io/device-scoring-weights annotation "slot=1": '
        "expected slot, core, and memory weights"
    )


def test_two_nodes_are_left_to_prioritize():
    """A choice between them is kube-scheduler's, so nothing is claimed before it asks."""
    world = World(make_node("n1", device("a")), make_node("n2", device("b")))
    pod = make_pod("p")
    assert world.filter(pod).node_names == ["n1", "n2"]
    assert world.claim(pod) is None


def test_prioritize_claims_the_best_node():
    """The best is alone at 10 and claimed; the next pod sees the claim and finds another card."""
    world = World(make_node("n1", device("a", devmem=1500)), make_node("n2", device("b")))
    world.use("n2", "b", 1, 0)
    first, second = make_pod("first"), make_pod("second")
    assert world.prioritize(first) == {"n2": 10, "n1": 0}
    assert world.claim(first) == ("n2", Kind.CLAIM, "b,NVIDIA,1000,0:;")
    world.prioritize(second, "n1")
    assert world.filter(make_pod("third"), "n1").failed == {"n1": "1/1 CardInsufficientMemory"}


def test_a_claim_ends():
    """Not bound in time, it is forgotten; a pod's own claim is never in its way."""
    world = World(make_node("n", device("a", devmem=1500)))
    assert world.filter(make_pod("p")).node_names == ["n"]
    assert world.filter(make_pod("p")).node_names == ["n"]
    assert world.filter(make_pod("q")).node_names == []
    world.time = CLAIM_S
    assert world.filter(make_pod("q")).node_names == ["n"]


@pytest.mark.parametrize(
    "volume", [{"persistentVolumeClaim": {"claimName": "c"}}, {"ephemeral": {}}]
)
def test_a_pod_with_volumes_gets_one_node_and_a_longer_claim(volume):
    """Binding its volumes comes first and may take long."""
    world = World(make_node("n1", device("a")), make_node("n2", device("b", devmem=1500)))
    value = msgspec.to_builtins(make_pod("p"))
    value["spec"]["volumes"] = [{"name": "v", **volume}]
    pod = msgspec.convert(value, type(make_pod("p")))
    assert world.filter(pod, "n1", "n2").node_names == ["n1"]
    world.time = CLAIM_S + 1
    world.selector.filter(FilterArgs(make_pod("q"), ["n2"]))
    assert world.claim(pod)[0] == "n1"


def test_a_full_sample_is_an_error_while_another_node_has_room():
    """The pod comes again with the next sample, instead of being parked for minutes."""
    full = [f"full{i}" for i in range(100)]
    world = World(
        *(make_node(name, device(name, devmem=10)) for name in full),
        make_node("room", device("r")),
    )
    assert world.filter(make_pod("p"), *full).error == "other nodes have room, retrying"
    assert world.told == []
    # Fewer names than kube-scheduler's smallest sample: the rest was ruled out, not left out.
    assert world.filter(make_pod("p"), *full[:99]).error == ""


def test_a_full_cluster_is_never_an_error():
    """When no node anywhere fits, the pod waits with reasons."""
    names = [f"n{i}" for i in range(101)]
    world = World(*(make_node(name, device(name, devmem=10)) for name in names))
    result = world.filter(make_pod("p"), *names[:100])
    assert (result.error, len(result.failed)) == ("", 100)


def test_a_pod_whose_bind_is_open_is_not_placed_anew():
    """It holds devices for sure: choosing again could give it two sets."""
    world = World(make_node("n", device("a")))
    pod = make_pod("p")
    world.snapshot.hold(Kind.FLIGHT, pod, "n", ((GrantedDevice("a", "NVIDIA", 1000, 0),),))
    assert "not settled" in world.filter(pod).error
    assert world.prioritize(pod) == {"n": 0}
    assert world.claim(pod)[1] is Kind.FLIGHT
