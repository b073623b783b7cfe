"""Behaviour of hamikit.quantity: Kubernetes' numbers, exact."""

import contextlib
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity as official

from hamikit.quantity import QuantityError, parse_integer, parse_quantity

SUFFIXES = ("", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3000", 3000),
        (3000, 3000),
        ("3k", 3000),
        ("16Gi", 16 * 2**30),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("500m", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("-1", -1),
        ("+1", 1),
        (0.5, Fraction(1, 2)),
    ],
)
def test_forms(text, value):
    """Signs, points, the three kinds of suffix, and numbers that JSON did not quote."""
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1ki", "1mi", "abc", "1.2.3", "1e", "--1", "1_000", "٣", "1e9999", "i"]
)
def test_other_texts_are_refused(text):
    """What the API server's grammar has not is no quantity, digits of other scripts included."""
    with pytest.raises(QuantityError, match="is not a quantity"):
        parse_quantity(text)


def test_an_integer_may_have_a_suffix():
    """Whole is what counts, not how it is spelled."""
    assert parse_integer("2k") == 2000
    with pytest.raises(QuantityError, match="not a whole number"):
        parse_integer("1500m")


@given(
    st.decimals(
        min_value=-(10**12), max_value=10**12, places=4, allow_nan=False, allow_infinity=False
    ),
    st.sampled_from(SUFFIXES),
)
def test_agrees_with_the_official_client(number: Decimal, suffix: str):
    """The official client's parser gives the same value (it rounds, we do not)."""
    text = f"{number:f}{suffix}"
    assert float(official(text)) == pytest.approx(float(parse_quantity(text)), rel=1e-15)


@given(st.text(max_size=12))
def test_any_text_is_a_value_or_one_kind_of_error(text: str):
    """Nobody's manifest can raise anything else here."""
    with contextlib.suppress(QuantityError):
        parse_quantity(text)
