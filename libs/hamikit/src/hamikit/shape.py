"""What a pod asks of a device family: the request of every container, and its faults."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from hamikit import names
from hamikit.devices import DeviceFamily
from hamikit.objects import Pod
from hamikit.quantity import QuantityError, parse_integer, parse_quantity

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
    """A request with faults; `faults` has all of them."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("; ".join(map(str, faults)))


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
class Selectors:
    """A pod's wishes about which devices and in which order, as the annotations spell them."""

    use_type: str = ""
    nouse_type: str = ""
    use_uuid: str = ""
    nouse_uuid: str = ""
    vgpu_mode: str = ""
    numa_bind: bool = False
    node_policy: str = ""
    gpu_policy: str = ""


@dataclass(frozen=True, slots=True)
class PodShape:
    """Everything about a pod that decides where it fits; equal shapes fit equally."""

    slots: tuple[Slot, ...]
    selectors: Selectors

    @property
    def empty(self) -> bool:
        """Whether no container asks for a device."""
        return all(slot.request is None for slot in self.slots)


def parse_container(
    container: str, limits: Quantities, requests: Quantities, family: DeviceFamily
) -> ContainerRequest | None:
    """Read one container's request; None when it asks for no device.

    Format: `spec/scheduler.md` 3.3 of HAMi v2.10's scheduler side, except that what cannot be
    right is refused instead of silently dropped.

    Raises:
        RequestError: with every fault of this container.
    """
    faults: list[Fault] = []

    def read(name: str, low: int, high: int, unit: str) -> int | None:
        if not name:
            return None
        raw = limits.get(name, requests.get(name))
        if raw is None:
            return None
        value, fault = _bounded(container, name, raw, (low, high, unit))
        if fault is not None:
            faults.append(fault)
        return value

    factor = max(family.memory_factor, 1)
    count = read(family.count, 0, INT32_MAX, "whole devices")
    memory = read(family.memory, 0, MEMORY_MAX_MIB // factor, "MiB")
    percent = read(family.memory_percentage, 0, 100, "percent")
    cores = read(family.cores, 0, 100, "percent")
    if faults:
        raise RequestError(faults)
    if not count:
        return None
    memory_mib = (memory or 0) * factor
    if not percent and not memory_mib:
        memory_mib = family.default_memory_mib
    return ContainerRequest(
        count=count,
        memory_mib=memory_mib,
        memory_percent=0 if memory_mib else (percent or 100),
        cores=family.default_cores if cores is None else cores,
    )


def _bounded(
    container: str, name: str, raw: str | float, bounds: tuple[int, int, str]
) -> tuple[int | None, Fault | None]:
    low, high, unit = bounds
    text = str(raw)
    rule = f"it counts {unit} and must be a whole number from {low} to {high}"
    try:
        value = parse_integer(text)
    except QuantityError:
        return None, Fault(container, name, text, rule, "write a whole number")
    if low <= value <= high:
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


def _truth(text: str) -> bool:
    """Go's ParseBool for true; anything else is not set."""
    return text in ("1", "t", "T", "TRUE", "true", "True")


def selectors_of(annotations: Mapping[str, str], family: DeviceFamily) -> Selectors:
    """The device wishes among a pod's annotations."""
    get = annotations.get
    return Selectors(
        use_type=get(family.use_type, ""),
        nouse_type=get(family.nouse_type, ""),
        use_uuid=get(family.use_uuid, ""),
        nouse_uuid=get(family.nouse_uuid, ""),
        vgpu_mode=get(names.POD_VGPU_MODE, ""),
        numa_bind=_truth(get(names.POD_NUMA_BIND, "")),
        node_policy=get(names.POD_NODE_POLICY, ""),
        gpu_policy=get(names.POD_GPU_POLICY, ""),
    )


def roles_of(pod: Pod) -> list[Role]:
    """The roles of a pod's containers in slot order."""
    init = [
        Role.SIDECAR if container.restart_policy == "Always" else Role.INIT
        for container in pod.init_containers
    ]
    return init + [Role.APP] * len(pod.spec.containers)


def shape_of(pod: Pod, family: DeviceFamily) -> PodShape:
    """The shape of a pod for one family.

    Raises:
        RequestError: with the faults of all containers.
    """
    faults: list[Fault] = []
    slots: list[Slot] = []
    for role, container in zip(roles_of(pod), pod.all_containers, strict=True):
        resources = container.resources
        limits = (resources.limits if resources else None) or {}
        requests = (resources.requests if resources else None) or {}
        request = None
        try:
            request = parse_container(container.name, limits, requests, family)
        except RequestError as error:
            faults += error.faults
        slots.append(Slot(role, request))
    if faults:
        raise RequestError(faults)
    return PodShape(tuple(slots), selectors_of(pod.metadata.annotations, family))
