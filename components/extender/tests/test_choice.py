"""Which cards go together: HAMi's vectors, and an oracle that tries every subset."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from hami_extender.choice import (
    best_connected,
    by_module,
    by_network,
    loneliest,
    network_share,
    pair_score,
)
from hami_extender.inventory import Card


def card(index, network=None):
    """A card that is known by its index."""
    return Card(f"c{index}", index, 1, 1, 1, "T", 0, "", True, network=network)


CARDS = [card(index, 0 if index < 2 else 1) for index in range(8)]


def test_the_most_populated_network_first():
    """Two of the larger group; of four asked three come from it (vendor vector 10)."""
    free = [0, 1, 4, 5, 6]
    assert by_network(free, 2, CARDS) == [4, 5]
    assert by_network(free, 4, CARDS) == [4, 5, 6, 0]
    assert network_share([CARDS[i] for i in (4, 5, 6, 0)]) == 7.5


def test_equal_networks_in_order_of_preference():
    """The group that was met first."""
    assert by_network([3, 0, 1, 2], 2, CARDS) == [3, 2]


def test_a_card_without_network_has_no_share():
    """Nothing is known about such a node."""
    assert network_share([CARDS[0], card(9)]) == 0
    assert network_share([]) == 0


def test_whole_modules_only():
    """Of free chips 1, 2, 3 and 6 only 2 and 3 are a module (vendor vector 9)."""
    assert by_module([1, 2, 3, 6], 2, CARDS) == [2, 3]
    assert by_module([1, 2, 3, 6], 4, CARDS) is None
    assert by_module([7, 6, 1, 0], 2, CARDS) == [7, 6]


def points(table):
    """A score from a table of pairs; the direction matters."""
    return lambda a, b: table.get((a, b), 0)


def test_the_loneliest_card_leaves_the_others_together():
    """The smallest sum to the others; of equal ones the first."""
    assert loneliest([0, 1, 2], points({(0, 1): 5, (1, 0): 5, (2, 0): 1})) == 2
    assert loneliest([2, 1, 0], points({})) == 2


def test_scores_of_cards_by_uuid():
    """Read from the first card of the pair; what is not known is 0."""
    score = pair_score(CARDS, {"c0": {"c1": 210}})
    assert (score(0, 1), score(1, 0), score(0, 2)) == (210, 0, 0)


def plain_best(candidates, count, score):
    """The oracle: every subset in order, the first of the best."""

    def total(group):
        return sum(score(a, b) for a, b in combinations(group, 2))

    best = max(combinations(candidates, count), key=total)
    return total(best), list(best)


@given(
    st.permutations(range(6)),
    st.integers(1, 6),
    st.dictionaries(
        st.tuples(st.integers(0, 5), st.integers(0, 5)), st.integers(-30, 300), max_size=30
    ),
)
def test_the_best_connected_group(candidates, count, table):
    """As by trying all; ties keep the earliest."""
    table = {pair: value for pair, value in table.items() if pair[0] != pair[1]}
    score = points(table)
    assert best_connected(candidates, count, score) == plain_best(candidates, count, score)


def test_an_annotation_made_to_be_slow_does_not_stop_us():
    """Choosing 16 of 32 cards has 600 million subsets; a group is found all the same."""
    table = {(a, b): (a * 7 + b * 13) % 101 for a in range(32) for b in range(32)}
    total, chosen = best_connected(range(32), 16, points(table))
    assert len(set(chosen)) == 16
    assert total > 0
