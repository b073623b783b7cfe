"""Whole pods on one node."""

import msgspec
import pytest
from extender_kit import GPU, container, device, make_node, make_pod
from hypothesis import given
from hypothesis import strategies as st

from hami_extender.inventory import facts_of
from hami_extender.placement import Placement, Refusal, place
from hami_extender.question import question_of
from hami_extender.usage import Kind, Ledger, footprint, holding_of
from hamikit.codec import GrantedDevice, encode_grant
from hamikit.devices import NVIDIA
from hamikit.objects import NodeStatus
from hamikit.shape import Role, roles_of


def state_of(node):
    """A node's state without pods."""
    ledger = Ledger()
    ledger.set_facts(node.metadata.name, facts_of(node, [NVIDIA]))
    return ledger.nodes[node.metadata.name]


def question(pod, policy="spread"):
    """What a pod asks."""
    return question_of(pod, [NVIDIA], policy)


def granted(node, pod, policy="spread"):
    """The grant's text, or the refusal."""
    verdict = place(state_of(node), question(pod, policy))
    return encode_grant(verdict.slots) if isinstance(verdict, Placement) else verdict


def test_every_container_has_its_slot():
    """Containers that ask for nothing leave an empty slot, wherever they stand (HAMi 8.1)."""
    pod = make_pod(
        "p",
        container("plain"),
        container("main", gpu=1, mem=3000, cores=30),
        container("last"),
        init=(container("first"),),
    )
    assert granted(make_node("n", device("GPU-a")), pod) == ";;GPU-a,NVIDIA,3000,30:;;"


def test_percent_becomes_mib_of_the_card():
    """The grant carries MiB, rounded down."""
    pod = make_pod("p", container(gpu=1, percent=33))
    assert granted(make_node("n", device("a", devmem=1000)), pod) == "a,NVIDIA,330,0:;"


def test_app_containers_add_up_init_containers_do_not():
    """Two init containers and an app container of 6000 MiB share one card of 8000 in turn."""
    big = {"gpu": 1, "mem": 6000}
    node = make_node("n", device("a"))
    pod = make_pod("p", container(**big), init=(container("i", **big), container("j", **big)))
    assert granted(node, pod) == "a,NVIDIA,6000,0:;" * 3
    pod = make_pod("p", container("a", **big), container("b", **big))
    assert granted(node, pod).reason == "1/1 CardInsufficientMemory"


def test_a_sidecar_stays():
    """A sidecar of 4000 MiB leaves no room for an app container of 5000 on a card of 8000."""
    sidecar = {**container("s", gpu=1, mem=4000), "restartPolicy": "Always"}
    pod = make_pod("p", container(gpu=1, mem=5000), init=(sidecar,))
    refusal = granted(make_node("n", device("a")), pod)
    assert refusal == Refusal(
        "1/1 CardInsufficientMemory",
        container=1,
        cards=((0, "CardInsufficientMemory"),),
        vendor="NVIDIA",
    )


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (None, "node unregistered"),
        (make_node("n"), "node unregistered"),
        (make_node("n", NODE_REGISTER="oops"), "NodeRegisterUnreadable"),
        (make_node("n", device("a"), NODE_BINDING="lock"), "NodeBindingUnsupported"),
        (make_node("n", device("a"), NODE_PAUSED="upgrade"), "NodePaused"),
        (make_node("n", device("a", count=0)), "NodePluginNotReady"),
    ],
)
def test_nodes_that_take_no_pod(node, reason):
    """Each has its own word, and no pod's end would help."""
    state = state_of(node) if node is not None else None
    assert place(state, question(make_pod("p"))) == Refusal(reason, unresolvable=True)


def test_more_cards_than_the_node_has_is_unresolvable():
    """No other pod's end brings a second card."""
    refusal = granted(make_node("n", device("a")), make_pod("p", container(gpu=2, mem=1)))
    assert refusal == Refusal(
        "NodeInsufficientDevice", unresolvable=True, container=0, vendor="NVIDIA"
    )


def test_kubelets_ids_are_counted():
    """A lost card withdraws ids first: with too few left kubelet would fail the pod for good."""
    node = make_node("n", device("a", count=10))
    withdrawn = msgspec.structs.replace(node, status=NodeStatus(allocatable={GPU: "4"}))
    ledger = Ledger()
    ledger.set_facts("n", facts_of(withdrawn, [NVIDIA]))
    slots = ((GrantedDevice("a", "NVIDIA", 1, 0),),) * 4
    ledger.hold("u", holding_of(Kind.GRANT, "n", "d/x", [Role.APP] * 4, slots))
    pod = make_pod("p", container(gpu=1, mem=1))
    assert place(ledger.nodes["n"], question(pod)) == Refusal("NodeSlotsExhausted")
    ledger.hold("u", holding_of(Kind.GRANT, "n", "d/x", [Role.APP] * 3, slots[:3]))
    assert isinstance(place(ledger.nodes["n"], question(pod)), Placement)
    ledger.hold("u", holding_of(Kind.GRANT, "n", "d/x", [Role.APP] * 4, slots))
    # What a card lacks says more.
    whole = make_pod("p", container(gpu=2, mem=1))
    assert place(ledger.nodes["n"], question(whole)).reason == "NodeInsufficientDevice"


def test_a_grant_that_cannot_be_read_closes_its_node():
    """Counting it as nothing would promise its cards again (HAMi 8.4)."""
    state = state_of(make_node("n", device("a")))
    state.unreadable = 1
    assert place(state, question(make_pod("p"))).reason == "NodeGrantUnreadable"


limits = st.fixed_dictionaries(
    {},
    optional={
        "gpu": st.integers(0, 3),
        "mem": st.integers(1, 5000),
        "cores": st.sampled_from([0, 1, 20, 50, 100]),
    },
)


@given(
    st.lists(st.tuples(st.lists(limits, min_size=1, max_size=3), st.lists(limits, max_size=2))),
    st.sampled_from(["spread", "binpack", "mutex"]),
)
def test_packing_never_over_commits(pods, policy):
    """Whatever is packed in whatever order, no card holds more than it has at any moment."""
    node = make_node("n", device("a", count=3), device("b", 1), device("c", 2, devcore=200))
    ledger = Ledger()
    ledger.set_facts("n", facts_of(node, [NVIDIA]))
    for number, (apps, init) in enumerate(pods):
        pod = make_pod(
            f"p{number}",
            *(container(f"a{i}", **ask) for i, ask in enumerate(apps)),
            init=tuple(container(f"i{i}", **ask) for i, ask in enumerate(init)),
        )
        asked = question(pod, policy)
        verdict = place(ledger.nodes["n"], asked) if asked is not None else None
        if isinstance(verdict, Placement):
            held = holding_of(Kind.GRANT, "n", pod.key, roles_of(pod), verdict.slots)
            assert held.taken == footprint(roles_of(pod), verdict.slots)
            ledger.hold(pod.metadata.uid, held)
    for card in facts_of(node, [NVIDIA]).cards:
        used = ledger.nodes["n"].used.get(card.uuid)
        if used is not None:
            assert used.slots <= card.slots
            assert used.memory_mib <= card.memory_mib
            assert used.cores <= card.cores
            holders = [h for h in ledger.holdings.values() if card.uuid in h.taken]
            assert not used.exclusive or len(holders) == 1
