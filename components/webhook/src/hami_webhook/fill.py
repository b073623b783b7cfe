"""What a container asks for once the parts that it left out are filled in."""

from collections.abc import Mapping

from hamikit.devices import DeviceFamily
from hamikit.quantity import QuantityError, parse_quantity
from hamikit.shape import Quantities


def asked(limits: Quantities, requests: Quantities, family: DeviceFamily) -> Quantities:
    """The family's resources that a container names; a limit wins over a request."""
    both = {**requests, **limits}
    return {name: both[name] for name in family.resources if name in both}


def additions(limits: Quantities, requests: Quantities, family: DeviceFamily) -> dict[str, str]:
    """The limits to add to a container so that its request is complete; none for count 0.

    Rules of HAMi v2.10: memory or cores without a count imply the default count; a count without
    memory is the whole card, and so all of its cores. A resource that stands in `requests` alone
    is copied, because the API server wants a limit for each extended resource.
    """
    named = asked(limits, requests, family)
    added = {name: str(value) for name, value in named.items() if name not in limits}
    if family.count in named:
        if is_zero(named[family.count]):
            return {}
    elif family.default_count and any(name in named for name in _amounts(family)):
        added[family.count] = str(family.default_count)
    else:
        return {}
    if family.cores and family.cores not in named and _whole_card(named, family):
        added[family.cores] = "100"
    return added


def asks(limits: Quantities, requests: Quantities, family: DeviceFamily) -> bool:
    """Whether a container asks for a device; an unreadable count counts as asking."""
    complete: Mapping[str, str | int | float] = {
        **asked(limits, requests, family),
        **additions(limits, requests, family),
    }
    return family.count in complete and not is_zero(complete[family.count])


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
