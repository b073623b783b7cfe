"""What speaks against a card, and when it no longer does."""

import pytest

from hami_device_plugin.faults import Faults, Ill, Reason, Sight

FINE, GONE, ASKS = Sight(True, ""), Sight(False), Sight(True, "a reset of the card")
SILENT = Sight(True)
"""A driver that does not tell what repair it wants."""


class Clock:
    """Time that only the test moves."""

    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


@pytest.fixture
def clock():
    """A clock at 0."""
    return Clock()


@pytest.fixture
def faults(clock):
    """An account with an XID 48 of card `a`."""
    account = Faults(60, clock)
    account.happened("a", Reason.XID, "XID 48")
    assert account.reasons() == {"a": Ill(Reason.XID, "XID 48")}
    return account


def unfit(account, *sights):
    """Whether `a` is unfit after each of these looks."""
    found = []
    for sight in sights:
        account.looked({"a": sight})
        found.append("a" in account.reasons())
    return found


def test_an_error_ends_with_the_repair_that_was_asked_for(faults):
    """However soon."""
    assert unfit(faults, FINE, ASKS, ASKS, FINE) == [True, True, True, False]


@pytest.mark.parametrize("driver", [FINE, SILENT])
def test_an_error_ends_when_the_card_was_away_and_is_back(faults, driver):
    """A card that is reset leaves the bus for a moment."""
    assert unfit(faults, driver, GONE, driver) == [True, True, False]


def test_an_error_without_a_repair_ends_after_a_quiet_time(faults, clock):
    """Counted from the last event."""
    clock.s = 59
    faults.happened("a", Reason.XID, "XID 48")
    clock.s = 118
    assert unfit(faults, FINE) == [True]
    clock.s = 119
    assert unfit(faults, FINE) == [False]


def test_a_driver_that_tells_nothing_keeps_the_error(faults, clock):
    """Nobody could say that the card is well."""
    clock.s = 10**6
    assert unfit(faults, SILENT) == [True]


def test_a_look_alone_finds_what_is_wrong():
    """Also after a restart of the plugin, which no event survives."""
    account = Faults(60, Clock())
    account.looked({"a": GONE, "b": ASKS, "c": FINE})
    assert account.reasons() == {
        "a": Ill(Reason.MISSING, "it does not answer"),
        "b": Ill(Reason.RESET, "NVML asks for a reset of the card"),
    }


def test_an_event_says_more_than_a_look(faults):
    """The person reads the XID, not that the card is gone since."""
    faults.looked({"a": GONE})
    assert faults.reasons()["a"].reason is Reason.XID


def test_a_card_that_was_never_seen_may_fail(faults):
    """It counts as away."""
    faults.looked({})
    assert unfit(faults, FINE) == [False]
