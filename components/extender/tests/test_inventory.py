"""What is read from a node."""

import msgspec
import pytest
from extender_kit import device, make_node, node_object

from hami_extender.inventory import LOCK_OFF, facts_of
from hamikit.devices import HYGON, NVIDIA
from hamikit.objects import Node


def test_cards_are_ordered_by_index():
    """The plugin's list is a permutation each time; ours is in order of index (HAMi 8.37)."""
    facts = facts_of(make_node("n", device("b", 1), device("a", 0)), [NVIDIA])
    assert [card.uuid for card in facts.cards] == ["a", "b"]
    (offer,) = facts.offers
    assert (offer.allocatable, offer.binding, facts.fault) == (20, "late", "")


def test_a_node_without_annotation_has_nothing():
    """Other nodes of the cluster are no fault."""
    facts = facts_of(make_node("n"), [NVIDIA])
    assert (facts.cards, facts.offers, facts.fault) == ((), (), "")


def test_an_unreadable_annotation_is_kept_as_a_fault():
    """It offers nothing and says why."""
    facts = facts_of(make_node("n", NODE_REGISTER="[{"), [NVIDIA])
    assert facts.cards == ()
    assert "register annotation" in facts.fault


def test_cordon_and_pause():
    """Blanks are trimmed and empty entries skipped; the pause keeps its reason."""
    facts = facts_of(
        make_node("n", device("a"), NODE_CORDON=" a, ,b", NODE_PAUSED="upgrade"), [NVIDIA]
    )
    assert facts.cordoned == {"a", "b"}
    assert facts.paused == "upgrade"


def test_allocatable_that_is_no_number_counts_as_none():
    """A quantity nobody understands allows nothing."""
    value = node_object("n", device("a"))
    value["status"]["allocatable"]["nvidia.com/gpu"] = "many"
    assert facts_of(msgspec.convert(value, Node), [NVIDIA]).offers[0].allocatable == 0


@pytest.mark.parametrize(
    ("said", "lock", "binding", "reason"),
    [
        ({"NODE_BINDING": "late"}, True, "late", ""),
        ({"NODE_BINDING": "lock", "NODE_BINDING_REASON": "no CDI"}, True, "lock", "no CDI"),
        ({"NODE_BINDING": "lock", "NODE_BINDING_REASON": "no CDI"}, False, "", "no CDI"),
        ({}, True, "lock", ""),
        ({}, False, "", LOCK_OFF),
        ({"NODE_BINDING_REASON": "no CDI"}, True, "", "no CDI"),
        ({"NODE_BINDING": "dra"}, True, "dra", ""),
    ],
    ids=["late", "lock", "lock, not ours", "HAMi", "HAMi, not ours", "neither", "unheard of"],
)
def test_by_which_protocol(said, lock, binding, reason):
    """What the node says; one that says nothing runs HAMi's own plugin."""
    value = node_object("n", device("a"), **said)
    if "NODE_BINDING" not in said:
        del value["metadata"]["annotations"]["hami.io/node-nvidia-binding"]
    (offer,) = facts_of(msgspec.convert(value, Node), [NVIDIA], lock=lock).offers
    assert (offer.binding, offer.binding_reason) == (binding, reason)


def test_other_families_speak_the_lock_protocol():
    """Their plugins announce nothing."""
    value = node_object("n", NODE_BINDING="late")
    value["metadata"]["annotations"][HYGON.register_annotation] = "d,4,1000,100,DCU,0,true:"
    node = msgspec.convert(value, Node)
    assert [o.binding for o in facts_of(node, [HYGON], lock=True).offers] == ["lock"]
    assert [o.binding for o in facts_of(node, [HYGON]).offers] == [""]
