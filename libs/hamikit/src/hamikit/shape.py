"""What a pod asks of a device family: the request of every container, and its faults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from hamikit.ascend import round_memory, whole
from hamikit.devices import REQUEST_TEMPLATES, DeviceFamily
from hamikit.objects import Pod
from hamikit.quantity import QuantityError, parse_integer, parse_quantity
from hamikit.selectors import Selectors, selectors_of, soft_wanted

INT32_MAX = 2**31 - 1
# No card comes near a TB. What asks for more was written with a byte suffix: `2000M` arrives here
# as 2G, because the API server rewrites quantities, and would be two billion MiB.
MEMORY_MAX_MIB = 999_999

Quantities = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that cannot be right in a request, with the rule it breaks and the remedy."""

    container: str
    field: str
    value: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        """One sentence for the person who wrote the manifest."""
        return (
            f"container {self.container!r}: {self.field} is {self.value!r}, but {self.rule}; "
            f"{self.remedy}"
        )


class RequestError(ValueError):
    """A request with faults; `faults` has those of containers, `other` what else is wrong."""

    def __init__(self, faults: list[Fault], other: str = "") -> None:
        self.faults = faults
        super().__init__("; ".join([*map(str, faults), *filter(None, [other])]))


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """A container's request, the same on each of its `count` devices.

    `memory_mib` > 0 wins over `memory_percent` (1..100 of the device's registered memory);
    `cores` is percent of one device, 100 asks for a device of its own.
    """

    count: int
    memory_mib: int
    memory_percent: int
    cores: int

    def memory_on(self, total_mib: int) -> int:
        """MiB that this request takes on a device with `total_mib`."""
        return self.memory_mib or total_mib * self.memory_percent // 100


class Role(Enum):
    """When a container runs: this decides how its share adds up with the others'."""

    INIT = "init"
    SIDECAR = "sidecar"
    APP = "app"


@dataclass(frozen=True, slots=True)
class Slot:
    """One container of a pod, in grant order (init containers first)."""

    role: Role
    request: ContainerRequest | None


@dataclass(frozen=True, slots=True)
class PodShape:
    """Everything about a pod that decides where it fits; equal shapes of a family fit equally."""

    slots: tuple[Slot, ...]
    selectors: Selectors

    @property
    def empty(self) -> bool:
        """Whether no container asks for a device."""
        return all(slot.request is None for slot in self.slots)


def parse_container(
    container: str,
    limits: Quantities,
    requests: Quantities,
    family: DeviceFamily,
    *,
    soft: bool = False,
) -> ContainerRequest | None:
    """Read one container's request; None when it asks for no device.

    As HAMi v2.10 reads it, except that what cannot be right is refused instead of silently
    dropped. `soft`: the pod wants its cards shared without templates.

    Raises:
        RequestError: with every fault of this container.
    """
    factor = max(family.memory_factor, 1)
    count, memory, percent, cores = _amounts(
        container,
        {**requests, **limits},
        (
            (family.count, INT32_MAX, "whole devices"),
            (family.memory, MEMORY_MAX_MIB // factor, "MiB"),
            (family.memory_percentage, 100, "percent"),
            (family.cores, 100, "percent"),
        ),
    )
    if not count:
        return None
    memory_mib = (memory or 0) * factor
    if not percent and not memory_mib:
        memory_mib = family.default_memory_mib
    request = ContainerRequest(
        count=count,
        memory_mib=memory_mib,
        memory_percent=0 if memory_mib else (percent or 100),
        cores=family.default_cores if cores is None else cores,
    )
    return _in_templates(container, request, family, soft=soft) if _templated(family) else request


def _amounts(
    container: str, asked: Quantities, rows: Sequence[tuple[str, int, str]]
) -> list[int | None]:
    """How much is asked of each resource (name, the most of it, what it counts).

    Raises:
        RequestError: with every fault.
    """
    found: list[int | None] = []
    faults: list[Fault] = []
    for name, high, unit in rows:
        raw = asked.get(name) if name else None
        value, fault = (None, None) if raw is None else _bounded(container, name, raw, high, unit)
        found.append(value)
        if fault is not None:
            faults.append(fault)
    if faults:
        raise RequestError(faults)
    return found


def _templated(family: DeviceFamily) -> bool:
    return family.request == REQUEST_TEMPLATES


def _in_templates(
    container: str, request: ContainerRequest, family: DeviceFamily, *, soft: bool
) -> ContainerRequest:
    """The request in the sizes that the chip can be cut in.

    Raises:
        RequestError: no size holds it, or the chip cannot be shared out like this.
    """

    def refuse(field: str, value: int, rule: str, remedy: str) -> RequestError:
        return RequestError([Fault(container, field, str(value), rule, remedy)])

    step = family.count_step
    if request.count > 1 and request.count % step:
        rule = f"this chip is given out in multiples of {step}"
        raise refuse(family.count, request.count, rule, f"write a multiple of {step}")
    asked = request.memory_mib or family.memory_allocatable_mib
    memory = asked if soft else round_memory(family, asked)
    if memory is None:
        rule = f"a card has {family.memory_capacity_mib} MiB"
        raise refuse(family.memory, asked, rule, "ask for less memory or for more cards")
    if not soft and request.cores:
        raise refuse(
            family.cores,
            request.cores,
            "cores follow from the memory's template",
            f"leave it out, or set the annotation {family.mode}: {family.soft_mode}",
        )
    # Judged as it will be given out: 1 becomes 2 where a module has two chips.
    count = max(request.count, step)
    if not soft and count > 1 and not whole(family, memory):
        raise refuse(
            family.memory,
            asked,
            "several cards for one container are given out whole",
            f"leave it out, or ask for {family.count}: 1",
        )
    return replace(request, count=count, memory_mib=memory, memory_percent=0)


def _bounded(
    container: str, name: str, raw: str | float, high: int, unit: str
) -> tuple[int | None, Fault | None]:
    text = str(raw)
    rule = f"it counts {unit} and must be a whole number from 0 to {high}"
    try:
        value = parse_integer(text)
    except QuantityError:
        return None, Fault(container, name, text, rule, "write a whole number")
    if 0 <= value <= high:
        return value, None
    return None, Fault(container, name, text, rule, _remedy(text, unit, high))


def _remedy(text: str, unit: str, high: int) -> str:
    """What to write instead; a value with a byte suffix was probably meant in that unit."""
    if unit == "MiB" and text[-1:].isalpha():
        mega = 1024**2 if text.endswith("i") else 1000**2
        meant = int(parse_quantity(text) / mega)
        if 0 < meant <= high:
            return f"write {meant} (the unit is MiB already)"
    return f"write a number up to {high}"


def role_of(restart_policy: str | None) -> Role:
    """The role of an init container that is to be restarted so."""
    return Role.SIDECAR if restart_policy == "Always" else Role.INIT


def roles_of(pod: Pod) -> list[Role]:
    """The roles of a pod's containers in slot order."""
    init = [role_of(container.restart_policy) for container in pod.init_containers]
    return init + [Role.APP] * len(pod.spec.containers)


def shape_of(pod: Pod, family: DeviceFamily) -> PodShape:
    """The shape of a pod for one family.

    Raises:
        RequestError: with the faults of all containers.
    """
    faults: list[Fault] = []
    slots: list[Slot] = []
    soft = soft_wanted(pod.metadata.annotations, family)
    for role, container in zip(roles_of(pod), pod.all_containers, strict=True):
        resources = container.resources
        limits = (resources.limits if resources else None) or {}
        requests = (resources.requests if resources else None) or {}
        request = None
        try:
            request = parse_container(container.name, limits, requests, family, soft=soft)
        except RequestError as error:
            faults += error.faults
        slots.append(Slot(role, request))
    if faults:
        raise RequestError(faults)
    return PodShape(tuple(slots), selectors_of(pod.metadata.annotations, family))
