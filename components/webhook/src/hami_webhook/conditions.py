"""The CEL conditions by which the API server sends us only the pods that we have to see."""

from collections.abc import Callable, Sequence

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


def _literal(name: str) -> str:
    """A CEL string literal (https://github.com/google/cel-spec/blob/master/doc/langdef.md)."""
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
