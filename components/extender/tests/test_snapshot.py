"""What the watch tells, and what outlives it."""

from extender_kit import container, device, make_node, make_pod

from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hamikit.codec import GrantedDevice
from hamikit.devices import NVIDIA
from hamikit.footprint import Share
from hamikit.informer import Change

GRANT = "a,NVIDIA,1000,10:;"
SLOTS = ((GrantedDevice("a", "NVIDIA", 1000, 10),),)


def snapshot():
    """One node with one card."""
    view = Snapshot(NVIDIA)
    view.on_node(Change(None, make_node("n", device("a"))))
    return view


def used(view):
    """What is used of the card."""
    return view.ledger.nodes["n"].used.get("a", Share())


def bound(name="p", grant=GRANT, **settings):
    """A pod with a grant."""
    return make_pod(name, node="n", POD_DEVICES_ALLOCATED=grant, **settings)


def test_a_grant_counts_until_the_pod_is_terminal_or_gone():
    """A pod in its grace period still holds its card (HAMi 8.3)."""
    view = snapshot()
    view.on_pod(Change(None, bound()))
    assert used(view) == Share(1, 1000, 10)
    view.on_pod(Change(None, bound(phase="Failed")))
    assert used(view) == Share()
    view.on_pod(Change(None, bound()))
    view.on_pod(Change(bound(), None))
    assert used(view) == Share()


def test_a_pod_with_annotations_but_no_node_holds_nothing():
    """Only the node in its spec binds a pod (HAMi 8.2)."""
    view = snapshot()
    view.on_pod(Change(None, make_pod("p", POD_DEVICES_ALLOCATED=GRANT, POD_NODE="n")))
    assert used(view) == Share()


def test_a_pod_bound_by_somebody_else_holds_nothing():
    """Without a grant it has no card of ours; a claim of it is dropped."""
    view = snapshot()
    view.claim(make_pod("p"), "n", SLOTS, 60)
    view.on_pod(Change(None, make_pod("p", node="n")))
    assert used(view) == Share()


def test_an_older_event_does_not_free_what_is_in_flight():
    """Updates from before the bind may arrive after it."""
    view = snapshot()
    view.hold(Kind.FLIGHT, make_pod("p"), "n", SLOTS)
    view.on_pod(Change(None, make_pod("p")))
    assert used(view) == Share(1, 1000, 10)
    view.on_pod(Change(None, bound()))
    assert view.ledger.holdings["uid-p"].kind is Kind.GRANT
    assert used(view) == Share(1, 1000, 10)


def test_the_first_grant_counts():
    """A grant that somebody edits later changes nothing here, as in the plugin."""
    view = snapshot()
    view.on_pod(Change(None, bound()))
    view.on_pod(Change(None, bound(grant="a,NVIDIA,1,0:;")))
    view.on_pod(Change(None, make_pod("p", node="n")))
    assert used(view) == Share(1, 1000, 10)


def test_an_unreadable_grant_closes_the_node_until_the_pod_is_gone():
    """Nobody knows what it holds."""
    view = snapshot()
    view.on_pod(Change(None, bound(grant="a,NVIDIA,lots,0:;")))
    assert view.ledger.nodes["n"].unreadable == 1
    view.on_pod(Change(bound(), None))
    assert view.ledger.nodes["n"].unreadable == 0


def test_a_vanished_card_stays_counted():
    """Its pods run on; should it come back, it is as full as before."""
    view = snapshot()
    view.on_pod(Change(None, bound()))
    view.on_node(Change(None, make_node("n", device("b"))))
    assert view.ledger.nodes["n"].missing_cards() == ["a"]
    view.on_node(Change(None, make_node("n", device("a"))))
    assert used(view) == Share(1, 1000, 10)


def test_a_node_that_is_gone_is_forgotten():
    """With its last pod."""
    view = snapshot()
    view.on_pod(Change(None, bound()))
    view.on_node(Change(make_node("n", device("a")), None))
    assert view.ledger.nodes["n"].facts is None
    view.on_pod(Change(bound(), None))
    assert view.ledger.nodes == {}


def test_sidecars_of_a_shown_pod_add_up():
    """The roles come from the pod, the figures from its grant."""
    view = snapshot()
    sidecar = {**container("s", gpu=1), "restartPolicy": "Always"}
    view.on_pod(Change(None, bound("p", GRANT * 3, init=(container("i", gpu=1), sidecar))))
    assert used(view) == Share(2, 2000, 20)


def test_a_claim_never_replaces_something_surer():
    """Neither does its end."""
    now = [0.0]
    view = Snapshot(NVIDIA, now=lambda: now[0])
    view.claim(make_pod("p"), "n", SLOTS, 5)
    view.on_pod(Change(None, bound()))
    view.claim(make_pod("p"), "n", SLOTS, 5)
    now[0] = 10
    view.expire_claims()
    view.drop_claim("uid-p")
    assert view.ledger.holdings["uid-p"].kind is Kind.GRANT
