"""What pods wait for that no card has room for, as far as this node could help."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import msgspec

from hami_mig_manager.auto import MODES, Demand
from hamikit import names
from hamikit.codec import CodecError, RegisteredDevice, decode_register, split_list
from hamikit.devices import NVIDIA
from hamikit.objects import Metadata, Pod, PodSpec, PodStatus
from hamikit.selectors import Selectors
from hamikit.shape import ContainerRequest, PodShape, RequestError, shape_of

_KEEPS_OUT = ("NoSchedule", "NoExecute")


class Toleration(msgspec.Struct, frozen=True):
    """A taint that a pod bears; an empty key or effect is any."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class Taint(msgspec.Struct, frozen=True):
    """What keeps pods off a node."""

    key: str = ""
    value: str = ""
    effect: str = ""


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One of a pod's conditions."""

    type: str = ""
    status: str = ""
    reason: str = ""
    last_transition_time: str | None = None


class WaitingSpec(PodSpec, frozen=True):
    """A pod's wish, with the taints that it bears."""

    tolerations: list[Toleration] = msgspec.field(default_factory=list)


class WaitingStatus(PodStatus, frozen=True):
    """A pod's status, with what the scheduler says of it."""

    conditions: list[Condition] = msgspec.field(default_factory=list)


class Waiting(Pod, frozen=True):
    """A pod that has no node."""

    spec: WaitingSpec = msgspec.field(default_factory=WaitingSpec)
    status: WaitingStatus = msgspec.field(default_factory=WaitingStatus)


class WaitingList(msgspec.Struct, frozen=True):
    """Pods without a node, as the API server lists them."""

    items: list[Waiting] = msgspec.field(default_factory=list)


class SiteSpec(msgspec.Struct, frozen=True):
    """What keeps pods off a node."""

    taints: list[Taint] = msgspec.field(default_factory=list)


class Site(msgspec.Struct, frozen=True):
    """A node, as far as it matters to pods that have none."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: SiteSpec = msgspec.field(default_factory=SiteSpec)


def demands(pods: Iterable[Waiting], site: Site) -> Iterator[Demand]:
    """Pods that the scheduler found no room for and that could run here if a card changed.

    A pod that takes either mode is none of them, nor one that has an affinity to nodes: whether a
    change would help it is not certain enough to take a card away from others.
    """
    try:
        devices = decode_register(site.metadata.annotations.get(names.NODE_REGISTER, "[]"))
    except CodecError:
        return
    for pod in pods:
        since, shape = _since(pod), _shape(pod)
        if since is None or shape is None or not _welcome(pod, site):
            continue
        requests = [slot.request for slot in shape.slots if slot.request is not None]
        cards = frozenset(d.id for d in devices if _suits(d, shape.selectors, requests))
        mode = shape.selectors.vgpu_mode.strip()
        if requests and mode in MODES:
            # Instances may all be of one card; shares are of as many as one container asks for.
            count = 1 if mode == names.MODE_MIG else max(r.count for r in requests)
            yield Demand(pod.metadata.uid, mode, cards, count, since)


def _since(pod: Waiting) -> float | None:
    """When the scheduler first said that there is no room, in Unix seconds."""
    for condition in pod.status.conditions:
        told = (condition.type, condition.status, condition.reason)
        if told == ("PodScheduled", "False", "Unschedulable"):
            try:
                return datetime.fromisoformat(condition.last_transition_time or "").timestamp()
            except ValueError:
                return None
    return None


def _shape(pod: Waiting) -> PodShape | None:
    """What a pod asks for, None for one that is not ours to help."""
    ours = pod.spec.scheduler_name == names.SCHEDULER_NAME
    if not ours or pod.metadata.deletion_timestamp is not None or pod.spec.node_name:
        return None
    try:
        return shape_of(pod, NVIDIA)
    except RequestError:
        return None


def _suits(device: RegisteredDevice, wish: Selectors, requests: Sequence[ContainerRequest]) -> bool:
    """Whether a card is one that the pod would take, and large enough when it is empty."""
    kind = device.type.lower()
    use, nouse = split_list(wish.use_type.lower()), split_list(wish.nouse_type.lower())
    if (use and not any(word in kind for word in use)) or any(word in kind for word in nouse):
        return False
    uuids = split_list(wish.use_uuid)
    if (uuids and device.id not in uuids) or device.id in split_list(wish.nouse_uuid):
        return False
    return all(request.memory_on(device.devmem) <= device.devmem for request in requests)


def _welcome(pod: Waiting, site: Site) -> bool:
    """Whether nothing else keeps the pod off the node."""
    affinity = pod.spec.affinity
    if affinity is not None and affinity.node_affinity and affinity.node_affinity.required:
        return False
    labels = site.metadata.labels
    if any(labels.get(key) != value for key, value in (pod.spec.node_selector or {}).items()):
        return False
    taints = [taint for taint in site.spec.taints if taint.effect in _KEEPS_OUT]
    return all(any(_bears(t, taint) for t in pod.spec.tolerations) for taint in taints)


def _bears(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in ("", taint.effect):
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", taint.key)
    return (toleration.key, toleration.value) == (taint.key, taint.value)
