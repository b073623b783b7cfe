"""Which card changes its mode for a pod that waits."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami_mig_manager.auto import (
    DWELL_S,
    WAIT_S,
    Choice,
    Demand,
    Outlook,
    choose,
    decode_choices,
    encode_choices,
    given_up,
    open_to_change,
)
from hami_mig_manager.state import Card, Instance, Spot

NOW = 10_000.0
SHARED = Card("GPU-a", 0, enabled=False, pending=False)
DIVIDED = Card("GPU-b", 1)
BOTH = {card.uuid: card for card in (SHARED, DIVIDED)}
WAITS = Demand("p", "mig", frozenset(BOTH), 1, NOW - WAIT_S)


def one(card=SHARED, **more):
    """A node with one card."""
    return Outlook({card.uuid: card}, now=NOW, **more)


@pytest.mark.parametrize(("card", "mode"), [(SHARED, "mig"), (DIVIDED, "hami-core")])
def test_an_idle_card_takes_the_mode_that_a_pod_waits_for(card, mode):
    """Either way."""
    demand = Demand("p", mode, frozenset({card.uuid}), 1, NOW - WAIT_S)
    assert choose(one(card), [demand]) == (card.uuid, Choice(mode, int(NOW), "p"))


@pytest.mark.parametrize(
    ("card", "more"),
    [
        (replace(SHARED, busy=True), {}),
        (replace(SHARED, fault="lost"), {}),
        (replace(SHARED, pending=True), {}),
        (SHARED, {"held": frozenset({"GPU-a"})}),
        (SHARED, {"cordoned": frozenset({"GPU-a"})}),
        (SHARED, {"changing": True}),
        (SHARED, {"choices": {"GPU-a": Choice("hami-core", int(NOW - DWELL_S + 1))}}),
        (SHARED, {"choices": {"GPU-a": Choice("mig", int(NOW - DWELL_S - 1))}}),
    ],
)
def test_a_card_that_is_used_or_was_chosen_lately_stays(card, more):
    """Processes, pods, a cordon, a fault, a change on its way, a choice of a moment ago."""
    assert choose(one(), [WAITS]) is not None
    assert choose(one(card, **more), [WAITS]) is None


def test_a_divided_card_with_instances_stays():
    """Whoever made them."""
    card = replace(DIVIDED, instances=(Instance(Spot("GPU-b", "1g.5gb", 0, 1), 1),))
    demand = Demand("p", "hami-core", frozenset({"GPU-b"}), 1, NOW - WAIT_S)
    assert choose(one(card), [demand]) is None
    assert choose(one(DIVIDED), [demand]) is not None


def test_a_choice_is_over_after_a_while():
    """And one that was made by a clock of the future counts for nothing."""
    for since in (NOW - DWELL_S, NOW + 5):
        outlook = one(choices={"GPU-a": Choice("hami-core", int(since))})
        assert choose(outlook, [WAITS]) is not None


def test_a_pod_has_to_wait_for_a_while():
    """It may find room by itself."""
    assert choose(one(), [replace(WAITS, since=NOW - WAIT_S + 1)]) is None


def test_nothing_changes_while_an_idle_card_has_the_mode_already():
    """The pod waits for something else then."""
    assert choose(Outlook(BOTH, now=NOW), [WAITS]) is None
    held = Outlook(BOTH, held=frozenset({"GPU-b"}), now=NOW)
    assert choose(held, [WAITS]) == ("GPU-a", Choice("mig", int(NOW), "p"))


def test_who_needs_more_cards_than_could_change_gets_none():
    """A card would be taken from others for nothing; where all could, they change one by one."""
    cards = {u: replace(DIVIDED, uuid=u, index=n) for n, u in enumerate(("GPU-a", "GPU-b"))}
    demand = Demand("p", "hami-core", frozenset(cards), 2, NOW - WAIT_S)
    assert choose(Outlook(cards, now=NOW), [replace(demand, count=3)]) is None
    assert choose(Outlook(cards, now=NOW), [demand]) is not None
    cards["GPU-a"] = SHARED
    found = choose(Outlook(cards, now=NOW), [demand])
    assert found is not None
    assert found[0] == "GPU-b"


def test_the_first_card_for_the_pod_that_waits_longest():
    """Whatever order they are told in; cards that the pod would not take do not count."""
    cards = {u: replace(SHARED, uuid=u, index=9 - n) for n, u in enumerate(("GPU-a", "GPU-b"))}
    late = replace(WAITS, pod="a-late", since=WAITS.since, cards=frozenset({"GPU-a"}))
    early = replace(WAITS, pod="b-early", since=WAITS.since - 1)
    for demands in ([late, early], [early, late]):
        assert choose(Outlook(cards, now=NOW), demands) == (
            "GPU-b", Choice("mig", int(NOW), "b-early"),
        )  # fmt: skip
    assert choose(Outlook(cards, now=NOW), [late])[0] == "GPU-a"
    assert choose(one(), [replace(WAITS, cards=frozenset({"GPU-z"}))]) is None


def test_what_came_to_nothing_is_given_up():
    """Somebody got the card first, or the driver refused; then it is left alone for a while."""
    choices = {"GPU-a": Choice("mig", int(NOW - 5), "p"), "GPU-gone": Choice("mig", 1)}
    assert given_up(one(choices=choices)) == {}
    instead = {"GPU-a": Choice("hami-core", int(NOW))}
    assert given_up(one(choices=choices, held=frozenset({"GPU-a"}))) == instead
    assert given_up(one(choices=choices, resting={"GPU-a": NOW + 1})) == instead
    assert given_up(one(choices=choices, resting={"GPU-a": NOW})) == {}
    arrived = replace(SHARED, enabled=True, pending=True)
    assert given_up(one(arrived, choices=choices, held=frozenset({"GPU-a"}))) == {}
    # Until a reset the card is as it was: nothing more is to be given up.
    back = replace(SHARED, pending=True)
    assert given_up(one(back, choices=instead, resting={"GPU-a": NOW + 1})) == {}


def test_nobody_is_asked_where_no_card_could_change():
    """The list of pods is for who can help."""
    assert open_to_change(one())
    assert not open_to_change(one(held=frozenset({"GPU-a"})))
    assert not open_to_change(one(choices={"GPU-a": Choice("hami-core", int(NOW))}))


@given(st.dictionaries(st.text(), st.builds(Choice, st.text(), st.integers(0, 2**40), st.text())))
def test_choices_go_out_and_come_back(choices):
    """Whatever their cards are called; none is no annotation."""
    text = encode_choices(choices)
    assert decode_choices(text or "") == choices
    assert (text is None) is (not choices)


@pytest.mark.parametrize("text", ["[", "[]", '{"a": {}}', '{"a":' * 100_000])
def test_choices_that_cannot_be_read_say_nothing(text):
    """Then cards stay as they are."""
    assert decode_choices(text) == {}


CARDS = st.builds(
    lambda enabled, busy, fault: Card(
        "", 0, enabled=enabled, pending=enabled, busy=busy, fault=fault
    ),
    st.booleans(), st.booleans(), st.sampled_from([None, None, "lost"]),
)  # fmt: skip
UUIDS = ("a", "b", "c")
SOME = st.frozensets(st.sampled_from(UUIDS))
DEMANDS = st.lists(
    st.builds(Demand, st.sampled_from("pqr"), st.sampled_from(["mig", "hami-core"]), SOME,
              st.integers(1, 3), st.integers(0, 500)), max_size=4,
)  # fmt: skip


STEPS = st.lists(st.tuples(DEMANDS, SOME, st.integers(0, 300), st.booleans()), max_size=30)


@given(st.lists(CARDS, min_size=3, max_size=3), STEPS)
def test_cards_do_not_flap(cards, steps):
    """Whoever waits and ends: only idle cards change, one at a time, each rarely."""
    there = {
        u: replace(c, uuid=u, index=n) for n, (u, c) in enumerate(zip(UUIDS, cards, strict=True))
    }
    choices, changes, now = {}, {}, 1000.0
    for demands, held, passes, arrives in steps:
        now += passes
        outlook = Outlook(there, choices, held, now=now)
        choices |= given_up(outlook)
        found = choose(replace(outlook, choices=choices), demands)
        travelling = [u for u, c in choices.items() if (c.mode == "mig") != there[u].enabled]
        if found is not None:
            uuid, choice = found
            assert not travelling
            assert outlook.idle(uuid)
            demand = next(d for d in demands if d.pod == choice.pod and d.mode == choice.mode)
            assert choice.mode != outlook.mode(uuid)
            assert demand.mode == choice.mode
            assert now - changes.get(uuid, -DWELL_S) >= DWELL_S - 1
            changes[uuid] = now
            choices[uuid] = choice
            travelling = [uuid]
        for uuid in travelling if arrives else []:
            enabled = choices[uuid].mode == "mig"
            there[uuid] = replace(there[uuid], enabled=enabled, pending=enabled)
