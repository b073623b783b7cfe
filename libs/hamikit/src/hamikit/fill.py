"""What a container asks for once the parts that it left out are filled in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hamikit.devices import REQUEST_TEMPLATES, DeviceFamily
from hamikit.objects import Container
from hamikit.quantity import QuantityError, parse_quantity
from hamikit.shape import Quantities, RequestError, parse_container


@dataclass(frozen=True, slots=True)
class Wish:
    """What a container asks of a family.

    `named` is what it names itself (a limit wins over a request), `added` are the limits that make
    its request complete, `device` is whether it asks for a device at all.
    """

    family: DeviceFamily
    named: dict[str, str | int | float]
    added: dict[str, str] = field(default_factory=dict)
    device: bool = False
    soft: bool = False
    """Whether the pod wants the family's cards shared without templates."""

    @property
    def complete(self) -> Quantities:
        """What the container names once everything is added."""
        return {**self.named, **self.added}


def wish_of(container: Container, family: DeviceFamily, *, soft: bool = False) -> Wish | None:
    """What a container asks of a family; None when it names none of its resources."""
    resources = container.resources
    if resources is None or not (resources.limits or resources.requests):
        return None
    return wish(resources.limits or {}, resources.requests or {}, family, soft=soft)


def wish(
    limits: Quantities, requests: Quantities, family: DeviceFamily, *, soft: bool = False
) -> Wish | None:
    """Fill in by the rules of HAMi v2.10; a count of 0 asks for nothing.

    NVIDIA: memory or cores without a count imply the default count; a count without memory is the
    whole card, and so all of its cores. Ascend: memory becomes the size that is given out, a chip
    of a two-chip module becomes the module. A resource that stands in `requests` alone is copied,
    because the API server wants a limit for each extended resource. None: nothing is named.
    """
    named = _named(limits, requests, family)
    if not named:
        return None
    added = {name: str(value) for name, value in named.items() if name not in limits}
    if family.count in named:
        if is_zero(named[family.count]):
            return Wish(family, named)
    elif family.implied and family.default_count and not named.keys().isdisjoint(_amounts(family)):
        added[family.count] = str(family.default_count)
    else:
        return Wish(family, named)
    if family.implied and family.cores and family.cores not in named and _whole_card(named, family):
        added[family.cores] = "100"
    if family.request == REQUEST_TEMPLATES:
        added |= _in_templates(named, family, soft=soft)
    return Wish(family, named, added, device=True, soft=soft)


def _named(
    limits: Quantities, requests: Quantities, family: DeviceFamily
) -> dict[str, str | int | float]:
    """The family's resources that a container names; a limit wins over a request."""
    found: dict[str, str | int | float] = {}
    for name in family.resources:
        if name in limits:
            found[name] = limits[name]
        elif name in requests:
            found[name] = requests[name]
    return found


def _in_templates(named: Quantities, family: DeviceFamily, *, soft: bool) -> Mapping[str, str]:
    """Count and memory as they will be given out; nothing where the request cannot be right."""
    try:
        request = parse_container("", named, {}, family, soft=soft)
    except RequestError:
        return {}
    if request is None:
        return {}
    given = {family.count: request.count}
    # Other units than MiB would have to come out even; the extender rounds them.
    if family.memory and family.memory_factor <= 1:
        given[family.memory] = request.memory_mib
    return {n: str(v) for n, v in given.items() if n not in named or not _same(named[n], v)}


def _same(value: str | float, number: int) -> bool:
    return parse_quantity(value) == number


def is_zero(value: str | float) -> bool:
    """Whether a quantity says nothing is wanted; what is no quantity is not zero."""
    try:
        return parse_quantity(value) == 0
    except QuantityError:
        return False


def _amounts(family: DeviceFamily) -> tuple[str, ...]:
    """The resources that imply a count; an empty name is nobody's."""
    return family.memory, family.memory_percentage, family.cores


def _whole_card(named: Quantities, family: DeviceFamily) -> bool:
    if family.memory_percentage in named:
        try:
            return parse_quantity(named[family.memory_percentage]) == 100
        except QuantityError:
            return False
    return family.memory not in named
