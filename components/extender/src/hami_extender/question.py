"""What one pod asks of every node; equal questions have equal answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hami_extender.usage import device_ids
from hami_extender.wish import Wish
from hamikit import names
from hamikit.devices import DeviceFamily
from hamikit.objects import Pod
from hamikit.shape import ContainerRequest, PodShape, RequestError, shape_of
from hamikit.weights import WeightsError


@dataclass(frozen=True, slots=True)
class Headroom:
    """What a namespace's quota leaves of one family; None is no limit."""

    memory_mib: int | None = None
    cores: int | None = None


PLENTY = Headroom()


@dataclass(frozen=True, slots=True)
class Part:
    """What a pod asks of one family. `ids` is how many device ids kubelet will take for it."""

    vendor: str
    shape: PodShape
    wish: Wish
    ids: int
    headroom: Headroom = PLENTY
    family: DeviceFamily = field(compare=False, kw_only=True)

    @classmethod
    def of(
        cls, shape: PodShape, gpu_policy: str, family: DeviceFamily, headroom: Headroom = PLENTY
    ) -> "Part":
        """A pod's part of this shape; `gpu_policy` counts where the pod has none.

        Raises:
            WeightsError: the pod's weights are none.
        """
        slots = shape.slots
        counts = [slot.request.count if slot.request else 0 for slot in slots]
        return cls(
            vendor=family.vendor,
            shape=shape,
            wish=Wish.of(shape.selectors, gpu_policy, family),
            ids=device_ids([slot.role for slot in slots], counts),
            headroom=headroom,
            family=family,
        )


@dataclass(frozen=True, slots=True)
class Question:
    """The parts of a pod's request, one for each family that it asks for."""

    parts: tuple[Part, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Tables are found by it for every request; to go through all parts is no small part.
        object.__setattr__(self, "_hash", hash(self.parts))

    def __hash__(self) -> int:
        return self._hash

    @property
    def node_policy(self) -> str:
        """Where the pod wants to go; empty where it does not say."""
        return self.parts[0].shape.selectors.node_policy

    def part(self, vendor: str) -> Part:
        """What is asked of one family."""
        return next(part for part in self.parts if part.vendor == vendor)

    def request(self, vendor: str, container: int | None) -> ContainerRequest | None:
        """What one container asks of one family."""
        if container is None:
            return None
        return self.part(vendor).shape.slots[container].request


def question_of(pod: Pod, families: Sequence[DeviceFamily], gpu_policy: str) -> Question | None:
    """What a pod asks; None if it asks for no device of ours.

    Raises:
        RequestError: with the faults of all containers, or of the pod's weights.
    """
    parts: list[Part] = []
    for family in families:
        shape = shape_of(pod, family)
        if shape.empty:
            continue
        try:
            parts.append(Part.of(shape, gpu_policy, family))
        except WeightsError as error:
            raise RequestError([], str(error)) from error
    return Question(tuple(parts)) if parts else None


QUESTIONS_KEPT = 256
Quantities = Mapping[str, str | int | float] | None


class Questions:
    """What pods ask, worked out once for all that ask alike. Any thread may use it."""

    def __init__(self, families: Sequence[DeviceFamily]) -> None:
        self._families = families
        self._annotations = tuple({name: None for f in families for name in _annotations(f)})
        self._known: dict[tuple[object, ...], Question | None] = {}

    def of(self, pod: Pod, gpu_policy: str) -> Question | None:
        """What a pod asks, as `question_of` says; raises RequestError as it does."""
        key = gpu_policy, self._spelled(pod)
        if key in self._known:
            return self._known[key]
        question = question_of(pod, self._families, gpu_policy)
        if len(self._known) >= QUESTIONS_KEPT:
            # Another thread may be looking: a new table is safe, whoever has the old one.
            self._known = {}
        self._known[key] = question
        return question

    def _spelled(self, pod: Pod) -> tuple[object, ...]:
        """All of the pod that `question_of` looks at, as it is spelled."""
        resources = [container.resources for container in pod.all_containers]
        return (
            tuple([container.restart_policy for container in pod.init_containers]),
            tuple([(_texts(r.limits), _texts(r.requests)) if r else None for r in resources]),
            tuple(map(pod.metadata.annotations.get, self._annotations)),
        )


def _annotations(family: DeviceFamily) -> tuple[str, ...]:
    """The annotations that say what a pod wants of a family."""
    own = (family.use_type, family.nouse_type, family.use_uuid, family.nouse_uuid)
    policies = (names.POD_NODE_POLICY, names.POD_GPU_POLICY, names.POD_SCORING_WEIGHTS)
    return (*own, family.mode, family.numa_bind, *policies)


def _texts(quantities: Quantities) -> tuple[tuple[str, str], ...]:
    # 1 and 1.0 are the same key, but not the same quantity.
    return tuple([(name, str(value)) for name, value in quantities.items()]) if quantities else ()
