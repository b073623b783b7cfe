"""The CEL conditions by which the API server sends us only the pods that we have to see."""

import re
from collections.abc import Callable, Iterable, Sequence

from hamikit.devices import DeviceFamily

_FORM = (
    "(object.spec.?containers.orValue([]) + object.spec.?initContainers.orValue([]))"
    ".exists(c, [{names}].exists(r, r in c.?resources.?limits.orValue({{}}) || "
    "r in c.?resources.?requests.orValue({{}})))"
)


def match_condition(families: Sequence[DeviceFamily]) -> str:
    """True for a pod that names one of the families' resources in any container."""
    names = [name for family in families for name in family.resources]
    return _FORM.format(names=", ".join(map(_literal, names)))


def no_match_condition(families: Sequence[DeviceFamily]) -> str:
    """True for every other pod."""
    return f"!{match_condition(families)}"


CONDITIONS: dict[str, Callable[[Sequence[DeviceFamily]], str]] = {
    "asks-for-a-device": match_condition,
    "asks-for-no-device": no_match_condition,
}
"""By the names that they have in a registration."""

_LIST = re.compile(r"(?<=\.exists\(c, \[)[^\]]*(?=\]\.exists\(r, r in )")
_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'")
_ESCAPED = re.compile(r"\\(.)")


def named(expression: str) -> tuple[str, ...]:
    """The resource names in a condition of this form; none in any other."""
    found = _LIST.search(_plain(expression))
    literals = _LITERAL.findall(found[0]) if found else []
    return tuple(_ESCAPED.sub(r"\1", literal) for literal in literals)


def also(expression: str, names: Iterable[str]) -> str:
    """A condition of this form for more names."""
    return _LIST.sub(lambda found: ", ".join((found[0], *map(_literal, names))), expression)


def same(one: str, other: str) -> bool:
    """Whether two conditions say the same, whatever the order of names and the white space."""
    first, second = (_LIST.sub("", _plain(each)) for each in (one, other))
    return first == second and set(named(one)) == set(named(other))


def _plain(expression: str) -> str:
    """A manifest may be folded; white space between tokens means nothing in CEL."""
    return " ".join(expression.split())


def _literal(name: str) -> str:
    """A CEL string literal (https://github.com/google/cel-spec/blob/master/doc/langdef.md)."""
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
