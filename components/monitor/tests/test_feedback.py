"""Who waits for whom."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hami_monitor.feedback import (
    COMPANY_NS,
    IDLE_NS,
    MS,
    RELIEF_NS,
    RUN_NS,
    STARVED_NS,
    Feedback,
    Reason,
    Task,
)

NOW = 1_700_000_000_000_000_000


def task(name, priority, last_ns=0, cards="a"):
    """A container on these cards that launched something at `last_ns`."""
    return Task((name, "main"), priority, frozenset(cards), last_ns)


def look(feedback, *tasks, at=NOW):
    """(blocked, contended, reason) by name."""
    decisions = feedback.look(tasks, at)
    return {key[0]: (d.blocked, d.contended, d.reason) for key, d in decisions.items()}


def test_two_of_low_priority_have_company():
    """HAMi's example: both active, both limited, nobody waits."""
    both = look(Feedback(), task("one", 1, NOW), task("two", 1, NOW))
    assert both == dict.fromkeys(("one", "two"), (False, True, Reason.NEIGHBOUR_ACTIVE))


def test_low_waits_for_high():
    """HAMi's example: the low one waits and is limited, the high one is not limited by it."""
    found = look(Feedback(), task("low", 1, NOW), task("high", 0, NOW))
    assert found == {
        "low": (True, True, Reason.HIGHER_PRIORITY_ACTIVE),
        "high": (False, False, Reason.IDLE_NEIGHBOURS),
    }


def test_alone_and_apart():
    """Who shares no card has nothing to do with the others, however active they are."""
    found = look(Feedback(), task("low", 1, NOW, "a"), task("high", 0, NOW, "b"))
    assert set(found.values()) == {(False, False, Reason.ALONE)}


def test_one_shared_card_of_several_is_enough():
    """A container launches on all its cards or on none."""
    found = look(Feedback(), task("low", 1, NOW, "ab"), task("high", 0, NOW, "bc"))
    assert found["low"][0] is True


def test_low_runs_as_soon_as_high_has_been_idle():
    """And has company for a little longer."""
    feedback, high = Feedback(), task("high", 0, NOW)
    assert look(feedback, task("low", 1), high)["low"][0] is True
    assert look(feedback, task("low", 1), high, at=NOW + IDLE_NS)["low"][0] is True
    after = look(feedback, task("low", 1), high, at=NOW + IDLE_NS + 1)["low"]
    assert after == (False, True, Reason.NEIGHBOUR_ACTIVE)
    later = look(feedback, task("low", 1), high, at=NOW + COMPANY_NS + 1)["low"]
    assert later == (False, False, Reason.IDLE_NEIGHBOURS)


def test_bursts_do_not_make_anybody_flap():
    """Who was let go runs for a while, even if the high one is back at once."""
    feedback, low = Feedback(), task("low", 1)
    look(feedback, low, task("high", 0, NOW))
    free = NOW + IDLE_NS + MS
    assert look(feedback, low, task("high", 0, NOW), at=free)["low"][0] is False
    back = look(feedback, low, task("high", 0, free), at=free + RUN_NS - 1)["low"]
    assert back == (False, True, Reason.LET_RUN)
    assert look(feedback, low, task("high", 0, free + RUN_NS), at=free + RUN_NS)["low"][0] is True


def test_nobody_starves():
    """After long waiting it runs for a moment, and then waits again."""
    feedback = Feedback()

    def low_at(now):
        return look(feedback, task("low", 1), task("high", 0, now), at=now)["low"]

    assert low_at(NOW)[0] is True
    assert low_at(NOW + STARVED_NS - 1)[0] is True
    relief = NOW + STARVED_NS
    assert low_at(relief) == (False, True, Reason.RELIEF)
    assert low_at(relief + RELIEF_NS - 1) == (False, True, Reason.RELIEF)
    assert low_at(relief + RELIEF_NS)[0] is True


@pytest.mark.parametrize("last_ns", [NOW + 3600 * 1000 * MS, 2**64 - 1])
def test_activity_in_the_future_makes_nobody_wait(last_ns):
    """A tenant that writes it into its account would press the others for ever."""
    assert look(Feedback(), task("low", 1), task("high", 0, last_ns))["low"][0] is False


def test_a_clock_that_is_set_back_makes_nobody_wait_longer():
    """The time of waiting counts from the new time on."""
    feedback = Feedback()
    look(feedback, task("low", 1), task("high", 0, NOW), at=NOW)
    back = NOW - 3600 * 1000 * MS
    assert look(feedback, task("low", 1), task("high", 0, back), at=back)["low"][0] is True
    end = back + STARVED_NS
    assert look(feedback, task("low", 1), task("high", 0, end), at=end)["low"][0] is False


STEPS = st.lists(
    st.tuples(st.integers(1, 400), st.sets(st.integers(0, 4))), min_size=1, max_size=120
)
TASKS = st.lists(
    st.tuples(st.integers(0, 3), st.sets(st.sampled_from("ab"), min_size=1)), min_size=5, max_size=5
)


@settings(max_examples=200, deadline=None)
@given(shape=TASKS, steps=STEPS)
def test_whatever_happens(shape, steps):
    """Nobody waits without a reason, for longer than is allowed, or right after it was let go."""
    feedback, now = Feedback(), NOW
    last = [0] * len(shape)
    waits_since, freed = {}, {}
    for pause_ms, launching in steps:
        now += pause_ms * MS
        for index in launching:
            last[index] = now
        tasks = [
            task(str(i), priority, last[i], cards) for i, (priority, cards) in enumerate(shape)
        ]
        decisions = feedback.look(tasks, now)
        for one in tasks:
            pressing = [t for t in tasks if presses(t, one, now)]
            check(decisions[one.key], pressing, (waits_since, freed), one.key, now)


def presses(other, one, now):
    """Whether a task makes another wait, by the rules alone."""
    recent = 0 <= now - other.last_ns <= IDLE_NS
    return recent and other.priority < one.priority and bool(other.cards & one.cards)


def check(decision, pressing, history, key, now):
    """The rules for one container at one look."""
    waits_since, freed = history
    if decision.blocked:
        assert pressing
        assert decision.contended
        assert now - waits_since.setdefault(key, now) < STARVED_NS
        assert now - freed.get(key, 0) >= RUN_NS
    elif key in waits_since:
        del waits_since[key]
        freed[key] = now
    if pressing and not decision.blocked:
        assert decision.reason in (Reason.LET_RUN, Reason.RELIEF)
