"""Findings over time."""

from hypothesis import given
from hypothesis import strategies as st

from hami_monitor.audit import Finding, Kind, Place
from hami_monitor.tracker import CONFIRM_S, REPEAT_S, UNKNOWN_S, Tracker

OVER = Finding(Place(Kind.OVER_USE, "GPU-a", "uid", "ns", "pod", "main"), 1, "over", 5)
FREE = Finding(Place(Kind.NO_LIMITER, "GPU-a", "uid", "ns", "pod", "main"), 1, "free")
LATE = Finding(Place(Kind.NOT_GRANTED, "GPU-a", "uid", "ns", "pod", ""), 1, "late")
STRANGE = Finding(Place(Kind.UNKNOWN_POD, "GPU-a", "uid-x"), 1, "strange")


def test_a_second_look_confirms():
    """The first asks for it soon; then it is told once and stands until it is gone."""
    tracker = Tracker()
    first = tracker.look([OVER], 0.0)
    assert (first.standing, first.told, first.soonest_s) == ((), (), CONFIRM_S)
    second = tracker.look([OVER], CONFIRM_S)
    assert (second.standing, second.told) == ((OVER,), (OVER,))
    third = tracker.look([OVER], 1.5)
    assert (third.standing, third.told) == ((OVER,), ())
    assert tracker.look([], 2.5).standing == ()
    assert tracker.totals[Kind.OVER_USE] == 1


def test_a_passing_sight_is_nothing():
    """Gone at the second look, and new again at the third."""
    tracker = Tracker()
    tracker.look([OVER], 0.0)
    tracker.look([], 1.0)
    assert tracker.look([OVER], 2.0).standing == ()
    assert tracker.totals[Kind.OVER_USE] == 0


def test_what_may_be_our_own_lag_takes_longer():
    """A pod, or a container's id, that the API server has not told yet."""
    for finding in (LATE, STRANGE):
        tracker = Tracker()
        tracker.look([finding], 0.0)
        assert tracker.look([finding], UNKNOWN_S - 0.1).standing == ()
        assert tracker.look([finding], UNKNOWN_S).told == (finding,)


def test_what_stays_is_told_again():
    """Events go after an hour; what still stands then must not be forgotten. It counts once."""
    tracker = Tracker()
    tracker.look([OVER], 0.0)
    tracker.look([OVER], 1.0)
    assert tracker.look([OVER], REPEAT_S).told == ()
    assert tracker.look([OVER], 1.0 + REPEAT_S).told == (OVER,)
    assert tracker.totals[Kind.OVER_USE] == 1


LOOKS = st.lists(
    st.tuples(
        st.floats(0.01, 3.0), st.sets(st.sampled_from([OVER, FREE, LATE, STRANGE]), max_size=4)
    ),
    max_size=40,
)


@given(LOOKS)
def test_only_what_is_there_stands_and_only_what_stands_is_told(looks):
    """For any course of events; totals never count more than was told."""
    tracker, now, told = Tracker(), 0.0, 0
    for pause, present in looks:
        now += pause
        news = tracker.look(present, now)
        assert set(news.told) <= set(news.standing) <= present
        assert news.soonest_s > 0
        told += len(news.told)
    assert sum(tracker.totals.values()) <= told
