"""What a container asks for once the parts that it left out are filled in."""

from dataclasses import dataclass, field

from hamikit.devices import DeviceFamily
from hamikit.objects import Container
from hamikit.quantity import QuantityError, parse_quantity
from hamikit.shape import Quantities


@dataclass(frozen=True, slots=True)
class Wish:
    """What a container asks of a family.

    `named` is what it names itself (a limit wins over a request), `added` are the limits that make
    its request complete, `device` is whether it asks for a device at all.
    """

    named: dict[str, str | int | float] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    device: bool = False


NOTHING = Wish()


def wish_of(container: Container, family: DeviceFamily) -> Wish:
    """Read what a container asks of a family."""
    resources = container.resources
    if resources is None:
        return NOTHING
    return wish(resources.limits or {}, resources.requests or {}, family)


def wish(limits: Quantities, requests: Quantities, family: DeviceFamily) -> Wish:
    """Fill in by the rules of HAMi v2.10; a count of 0 asks for nothing.

    Memory or cores without a count imply the default count; a count without memory is the whole
    card, and so all of its cores. A resource that stands in `requests` alone is copied, because
    the API server wants a limit for each extended resource.
    """
    named: dict[str, str | int | float] = {}
    for name in family.resources:
        if name in limits:
            named[name] = limits[name]
        elif name in requests:
            named[name] = requests[name]
    if not named:
        return NOTHING
    added = {name: str(value) for name, value in named.items() if name not in limits}
    if family.count in named:
        if is_zero(named[family.count]):
            return Wish(named)
    elif family.default_count and any(name in named for name in _amounts(family)):
        added[family.count] = str(family.default_count)
    else:
        return Wish(named)
    if family.cores and family.cores not in named and _whole_card(named, family):
        added[family.cores] = "100"
    return Wish(named, added, device=True)


def is_zero(value: str | float) -> bool:
    """Whether a quantity says nothing is wanted; what is no quantity is not zero."""
    try:
        return parse_quantity(value) == 0
    except QuantityError:
        return False


def _amounts(family: DeviceFamily) -> tuple[str, ...]:
    """The resources that imply a count."""
    every = (family.memory, family.memory_percentage, family.cores)
    return tuple(name for name in every if name)


def _whole_card(named: Quantities, family: DeviceFamily) -> bool:
    if family.memory_percentage in named:
        try:
            return parse_quantity(named[family.memory_percentage]) == 100
        except QuantityError:
            return False
    return family.memory not in named
