"""Orders and figures as HAMi v2.10 has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami_extender.inventory import Card
from hami_extender.score import card_score, node_score, priorities, sort_key
from hamikit.footprint import NOTHING, Share


def card(uuid="a", index=0, *, slots=10, memory_mib=8000, cores=100, numa=0):
    """A card."""
    return Card(uuid, index, slots, memory_mib, cores, "NVIDIA", numa, "hami-core", True)


def test_node_score_vectors():
    """Half used in all three is 15 alone, 7.5 beside an empty twin; 7.1's nodes are 3 and 8."""
    half = {"a": Share(5, 4000, 50)}
    assert node_score([card("a")], half) == 15
    assert node_score([card("a"), card("b")], half) == 7.5
    assert node_score([card("1"), card("2")], {"1": Share(1, 2000, 25)}) == 3.0
    assert node_score([card("3"), card("4")], {"4": Share(1, 6000, 75)}) == 8.0


def test_card_score_vector():
    """Count 10 used 2, cores 4 used 1, 8192 MiB used 2048: 7.0."""
    one = card(slots=10, cores=4, memory_mib=8192)
    assert card_score(one, Share(2, 2048, 1)) == 7.0


def test_each_part_of_what_is_asked_counts():
    """One task of ten, a tenth of the cores and a tenth of the memory."""
    assert card_score(card(), NOTHING, Share(1, 800, 10)) == 3
    assert card_score(card(), Share(1, 800, 10), Share(2, 1600, 20)) == 9


def test_a_card_without_a_total_scores_zero():
    """Nothing is divided by zero."""
    assert card_score(card(cores=0), Share(1, 1000, 0)) == 0
    assert node_score([card(slots=0)], {}) == 0


USED = {"a": Share(1, 2000, 20), "b": NOTHING, "c": Share(2, 500, 5)}


@pytest.mark.parametrize(
    ("policy", "numa_bind", "taken_first"),
    [
        ("binpack", False, "a"),
        ("spread", False, "b"),
        ("", False, "b"),
        ("no such policy", False, "b"),
        ("mutex", False, "b"),
        ("numa", False, "c"),
        ("numa,binpack", False, "c"),
        ("binpack, numa", False, "a"),
        ("mutex,spread", False, "b"),
        ("no such, nor this", False, "b"),
        ("binpack", True, "a"),
        ("spread", True, "c"),
        ("mutex", True, "c"),
        ("spread,numa", True, "c"),
    ],
)
def test_what_is_taken_first_under_each_policy(policy, numa_bind, taken_first):
    """The tail of the ascending order is taken first; numa-bind puts the group first."""
    numa = {"a": 0, "b": 0, "c": 1}
    key = sort_key(policy, numa_bind=numa_bind)
    all_cards = [card(uuid, i, numa=numa[uuid]) for i, uuid in enumerate("abc")]
    scored = sorted(all_cards, key=lambda c: key(c, USED[c.uuid], card_score(c, USED[c.uuid])))
    assert scored[-1].uuid == taken_first


@given(st.lists(st.integers(), max_size=100, unique=True))
def test_the_best_is_alone_at_ten(ranked):
    """Priorities fall with the rank, stay in 0..10, and 10 is given once."""
    given_ = list(priorities([str(name) for name in ranked]).values())
    assert given_ == sorted(given_, reverse=True)
    assert all(0 <= value <= 10 for value in given_)
    assert given_.count(10) == min(1, len(ranked))


def test_scores_fall_evenly_to_nothing():
    """The best is alone at 10, the last at 0."""
    assert priorities(["a", "b", "c", "d"]) == {"a": 10, "b": 6, "c": 3, "d": 0}
    assert priorities(["a", "b"]) == {"a": 10, "b": 0}


def test_numa_comes_first_in_a_list_and_only_once():
    """Where numa-bind is on; within a NUMA node the list decides."""
    key = sort_key("binpack, numa", numa_bind=True)
    assert key(card(index=1), NOTHING, 0.1) < key(card(index=0), NOTHING, 0.9)
    assert key(card(numa=0), NOTHING, 0.9) < key(card(numa=1), NOTHING, 0.1)
