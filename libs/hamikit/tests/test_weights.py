"""Behaviour of hamikit.weights: HAMi's annotation and HAMi's words for what is wrong with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamikit.weights import EQUAL, Weights, WeightsError, parse_weights


def test_weights_in_any_order():
    """Each key once, blanks do not count; nothing given weighs all the same."""
    assert parse_weights(" memory=3, slot = 1 ,core=0") == Weights(1, 0, 3)
    assert parse_weights("") == EQUAL


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("slot=1,core=1", "expected slot, core, and memory weights"),
        ("slot=1,core=1,memory", "expected key=value entries"),
        ("slot=1,slot=1,memory=1", 'duplicate "slot" weight'),
        ("slot=1,core=x,memory=1", '"core" weight must be an integer'),
        ("slot=1,core=1_0,memory=1", '"core" weight must be an integer'),
        ("slot=1,core=9223372036854775808,memory=1", '"core" weight must be an integer'),
        ("slot=1,core=-1,memory=1", '"core" weight must not be negative'),
        ("slot=1,core=1,disk=1", 'unknown weight "disk"'),
        ("slot=0,core=0,memory=0", "at least one weight must be positive"),
    ],
)
def test_what_is_wrong(text, why):
    """The text quotes the annotation."""
    with pytest.raises(WeightsError) as caught:
        parse_weights(text)
    prefix = f'invalid hami.io/device-scoring-weights annotation "{text}": '
    assert str(caught.value) == prefix + why


@given(st.text(max_size=60) | st.from_regex(r"slot=\d*,core=\d*,memory=\d*", fullmatch=True))
def test_any_text_is_weights_or_one_kind_of_error(text):
    """Whatever somebody writes."""
    try:
        found = parse_weights(text)
    except WeightsError:
        return
    assert found.slot + found.core + found.memory > 0
