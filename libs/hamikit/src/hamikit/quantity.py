"""Kubernetes quantities as exact numbers.

Grammar: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
(sign, digits with an optional point, then a binary, a decimal or an exponent suffix).
"""

import re
from fractions import Fraction

_SUFFIX: dict[str, Fraction] = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{s: Fraction(1000 ** (i + 1)) for i, s in enumerate(("k", "M", "G", "T", "P", "E"))},
    **{s: Fraction(1024 ** (i + 1)) for i, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
}
# An exponent of more than three digits is no quantity of anything; it would only cost memory here.
_FORM = re.compile(
    r"([+-]?)(\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?",
    re.ASCII,
)
# As many digits as the form takes.
_PLAIN = 40


class QuantityError(ValueError):
    """A text that is no Kubernetes quantity, or not the whole number that is needed."""


def parse_quantity(text: str | float) -> Fraction:
    """Return the exact value of a quantity such as `3000`, `0.5`, `16Gi` or `1e3`.

    Raises:
        QuantityError: the text does not follow the grammar.
    """
    match = _FORM.fullmatch(str(text))
    if match is None:
        raise QuantityError(f"{text!r} is not a quantity")
    sign, digits, suffix, exponent = match.groups()
    value = Fraction(digits) * _SUFFIX[suffix or ""] * Fraction(10) ** int(exponent or 0)
    return -value if sign == "-" else value


def parse_integer(text: str | float) -> int:
    """Return a quantity that has to be a whole number.

    Raises:
        QuantityError: no quantity, or one with a fraction.
    """
    if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= _PLAIN:
        return int(text)  # what nearly every manifest has, ten times as fast
    value = parse_quantity(text)
    if value.denominator != 1:
        raise QuantityError(f"{text!r} is not a whole number")
    return value.numerator
