"""Cards that are chosen together: by their links, by their network, by their module."""

from dataclasses import replace

from test_fit import ask, card, cards, wish

from hami_extender.fit import Misfit, fit_container
from hami_extender.wish import Wish
from hamikit.ascend import ascend_row
from hamikit.footprint import Share
from hamikit.selectors import Selectors

LINKS = {
    "a": {"b": 10, "c": 10, "d": 50},
    "b": {"a": 10, "c": 90, "d": 10},
    "c": {"a": 10, "b": 90, "d": 10},
    "d": {"a": 50, "b": 10, "c": 10},
}
"""a and d are near each other, b and c nearer."""


def linked(*entries):
    """A node whose cards are linked as in LINKS."""
    return replace(cards(*entries), pair_scores=LINKS)


def chosen(node, wish_, request):
    """The names of the cards that a container gets."""
    return [node.cards[position].uuid for position in fit_container(node, wish_, request)]


def chips(*networks):
    """A node of chips in these network groups, `a` first."""
    return cards(*(card("abcdefgh"[i], i, network=n) for i, n in enumerate(networks)))


def of_family(word, **settings):
    """The wishes of a pod that asks for such chips."""
    return Wish.of(Selectors(), "spread", ascend_row(word, **settings))


def test_one_card_is_the_loneliest():
    """So that those which are linked well stay together."""
    entries = [card("b"), card("a", 1), card("c", 2), card("d", 3)]
    assert chosen(linked(*entries), wish("topology-aware"), ask()) == ["d"]
    assert chosen(linked(*entries[:3]), wish("topology-aware"), ask()) == ["a"]


def test_several_cards_are_linked_best():
    """Wherever they stand in the order of preference."""
    node = linked(card("a"), (card("b", 1), Share(3)), (card("c", 2), Share(3)), card("d", 3))
    assert sorted(chosen(node, wish("topology-aware"), ask(2))) == ["b", "c"]
    assert sorted(chosen(node, wish("spread"), ask(2))) == ["a", "d"]


def test_of_complete_numa_nodes_the_best_linked():
    """Whichever was met first."""
    near = linked(*(card(name, i, numa=i // 2) for i, name in enumerate("adbc")))
    far = linked(*(card(name, i, numa=i // 2) for i, name in enumerate("bcad")))
    bound = wish("topology-aware", numa_bind=True)
    assert sorted(chosen(near, bound, ask(2))) == ["b", "c"]
    assert sorted(chosen(far, bound, ask(2))) == ["b", "c"]


def test_cards_gathered_in_vain_for_a_quota():
    """The text says quota for those that were gathered last, and nothing of the others."""
    node = linked(card("a", numa=0), card("b", 1, numa=1))
    found = fit_container(node, wish("topology-aware"), ask(), lambda _: False)
    assert found == Misfit(
        "2/2 ResourceQuotaNotFit", ((0, "ResourceQuotaNotFit"), (1, "ResourceQuotaNotFit"))
    )
    bound = wish("topology-aware", numa_bind=True)
    # Each card may be had alone when looked at, and the choice may not.
    calls = []

    def first_looks_only(positions):
        calls.append(positions)
        return len(calls) <= 2

    found = fit_container(node, bound, ask(), first_looks_only)
    assert found.reason == "1/2 NumaNotFit, 1/2 ResourceQuotaNotFit"
    assert fit_container(node, bound, ask(), lambda positions: positions == [0]) == [0]


def test_chips_of_the_larger_network():
    """Before the order of preference."""
    network = of_family("Ascend910B3")
    assert chosen(chips(0, 0, 1), network, ask(2)) == ["b", "a"]
    assert chosen(chips(0, 0, 1, 1, 1), network, ask(4)) == ["e", "d", "c", "b"]


def test_one_chip_is_taken_in_order():
    """Of a network, and of a module."""
    assert chosen(chips(0, 0, 1), of_family("Ascend910B3"), ask()) == ["c"]
    modules = of_family("Ascend910C", super_pod=True)
    assert chosen(chips(None, None, None), modules, ask()) == ["c"]


def test_a_chip_of_no_network_spoils_the_grouping():
    """Then the order of preference decides; modules are modules all the same."""
    assert chosen(chips(0, 0, None), of_family("Ascend910B3"), ask(2)) == ["c", "b"]
    modules = of_family("Ascend910C", super_pod=True)
    assert sorted(chosen(chips(0, 0, None), modules, ask(2))) == ["a", "b"]


def test_what_is_asked_counts_as_one_task():
    """Where the card's type is the vendor's word: 6/10 is fuller than 2/4."""
    plain = {"type": "NVIDIA", "memory_mib": 10**9}
    node = cards((card("a", **plain), Share(5)), (card("b", 1, slots=4, **plain), Share(1)))
    assert chosen(node, wish("spread"), ask()) == ["b"]
