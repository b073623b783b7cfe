"""What is read from a node."""

import msgspec
from extender_kit import device, make_node, node_object

from hami_extender.inventory import facts_of
from hamikit.devices import NVIDIA
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
