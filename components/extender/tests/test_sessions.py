"""Who has signed in."""

from hypothesis import given
from hypothesis import strategies as st

from hami_extender import sessions
from hami_extender.sessions import LASTS_S, Sessions


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.at = 0.0

    def __call__(self):
        return self.at


def test_an_id_says_nothing_of_the_token():
    """Nobody can guess it: 256 random bits, another one each time."""
    kept = Sessions()
    names = {kept.open("abc.def") for _ in range(100)}
    assert len(names) == 100
    assert all("abc" not in name and len(name) >= 43 for name in names)
    assert {kept.token(name) for name in names} == {"abc.def"}


def test_a_session_ends_with_the_day_or_when_it_is_left():
    """And one that never was is none."""
    clock = Clock()
    kept = Sessions(now=clock)
    first, second = kept.open("one"), kept.open("two")
    kept.close(first)
    kept.close("unknown")
    clock.at = LASTS_S - 1
    assert (kept.token(first), kept.token(second), kept.token("")) == (None, "two", None)
    clock.at = LASTS_S
    assert kept.token(second) is None


def test_the_table_is_bounded(monkeypatch):
    """The oldest goes; what has ended goes first."""
    monkeypatch.setattr(sessions, "SESSIONS", 2)
    clock = Clock()
    kept = Sessions(now=clock)
    names = [kept.open(str(number)) for number in range(3)]
    assert [kept.token(name) for name in names] == [None, "1", "2"]
    clock.at = LASTS_S
    kept.open("new")
    assert len(kept._sessions) == 1


STEPS = st.lists(st.tuples(st.sampled_from(["open", "close", "wait"]), st.integers(0, 9)))


@given(STEPS)
def test_only_what_was_opened_lately_and_not_left_is_open(steps):
    """Whatever people do, in whatever order."""
    clock = Clock()
    kept, opened = Sessions(now=clock), {}
    for what, number in steps:
        if what == "open":
            opened[kept.open(str(number))] = (str(number), clock.at)
        elif what == "wait":
            clock.at += number * LASTS_S / 6
        elif opened:
            name = sorted(opened)[number % len(opened)]
            kept.close(name)
            opened[name] = ("", -LASTS_S)
        for name, (token, since) in opened.items():
            assert kept.token(name) == (token if clock.at - since < LASTS_S else None)
