"""Which error events count: the policy of HAMi v2.10 with its vectors."""

import pytest

from hami_device_plugin.xids import APPLICATION, XidPolicy


def policy(enable="", disable=""):
    """A policy from the two variables."""
    variables = {"DP_ENABLE_HEALTHCHECKS": enable, "DP_DISABLE_HEALTHCHECKS": disable}
    return XidPolicy.read(variables)


def test_errors_of_programs_do_not_count():
    """All others do."""
    assert {13, 31, 43, 45, 68, 109} == APPLICATION
    assert [xid for xid in range(130) if not policy().counts(xid)] == sorted(APPLICATION)
    assert XidPolicy.read({}).counts(79)


@pytest.mark.parametrize(
    ("enable", "disable", "counted", "ignored"),
    [
        ("31", "", {79, 31}, {13}),
        ("all", "", {13, 31, 79}, set()),
        ("XIDS", "all", {13, 79}, set()),
        ("", "79, 48", set(), {79, 48, 13}),
        ("79", "79", {79}, {13}),
        ("79", "all", {79}, {48, 13}),
        ("", " Xids ", set(), {79, 13}),
        ("x, 31,, -3", "", {31, 79}, {13}),
    ],
)
def test_the_operators_word(enable, disable, counted, ignored):
    """What is named goes before `all`, enabling before disabling, rubbish is read over."""
    found = policy(enable, disable)
    assert {xid for xid in counted | ignored if found.counts(xid)} == counted
