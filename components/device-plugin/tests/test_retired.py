"""Slots that are no more stay on the list for as long as kubelet may be about to take one."""

from hami_device_plugin.retired import LINGER_S, Retired


def test_a_slot_that_is_no_more_is_unhealthy_for_a_while():
    """Then it is off the list; one that comes back is as it is said to be."""
    clock = [0.0]
    retired = Retired(now=lambda: clock[0])
    assert retired.added({"a": True, "b": True}) == {"a": True, "b": True}
    assert retired.added({"a": True}) == {"a": True, "b": False}
    clock[0] = LINGER_S - 1
    assert retired.added({"c": True}) == {"c": True, "a": False, "b": False}
    clock[0] = LINGER_S
    assert retired.added({"c": True}) == {"c": True, "a": False}
    assert retired.added({"a": True, "c": False}) == {"a": True, "c": False}
    clock[0] = 3 * LINGER_S
    assert retired.added({"a": True, "c": False}) == {"a": True, "c": False}


def test_a_slot_that_went_again_lingers_anew():
    """From when it went the last time."""
    clock = [0.0]
    retired = Retired(now=lambda: clock[0])
    retired.added({"a": True})
    retired.added({})
    retired.added({"a": True})
    clock[0] = LINGER_S
    assert retired.added({}) == {"a": False}
