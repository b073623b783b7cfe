"""How much slots, cores and memory count when cards are compared: a pod's own weights."""

import re
from dataclasses import dataclass

from hamikit import names

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
INT64 = 2**63


class WeightsError(ValueError):
    """An annotation that gives no weights; the text is HAMi v2.10's."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Factors of the three parts of a card's score."""

    slot: int = 1
    core: int = 1
    memory: int = 1


EQUAL = Weights()


def parse_weights(text: str) -> Weights:
    """Read `slot=<int>,core=<int>,memory=<int>`; an empty text weighs all the same.

    Raises:
        WeightsError: another form, a negative weight, or none above 0.
    """
    if not text:
        return EQUAL
    parts = text.split(",")
    if len(parts) != 3:
        raise _wrong(text, "expected slot, core, and memory weights")
    found: dict[str, int] = {}
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise _wrong(text, "expected key=value entries")
        if key in found:
            raise _wrong(text, f'duplicate "{key}" weight')
        found[key] = _weight(text, key, value)
    if not any(found.values()):
        raise _wrong(text, "at least one weight must be positive")
    return Weights(**found)


def _weight(text: str, key: str, value: str) -> int:
    # A length first: int() refuses thousands of digits with an error of its own.
    if len(value) > 20 or _INTEGER.fullmatch(value) is None or not -INT64 <= int(value) < INT64:
        raise _wrong(text, f'"{key}" weight must be an integer')
    if int(value) < 0:
        raise _wrong(text, f'"{key}" weight must not be negative')
    if key not in ("slot", "core", "memory"):
        raise _wrong(text, f'unknown weight "{key}"')
    return int(value)


def _wrong(text: str, why: str) -> WeightsError:
    return WeightsError(f'invalid {names.POD_SCORING_WEIGHTS} annotation "{text}": {why}')
