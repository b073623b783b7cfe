"""What each container of a pod was granted, by the pod's annotation."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from hamikit import names
from hamikit.codec import CodecError, GrantedDevice, decode_grant
from hamikit.devices import DeviceFamily
from hamikit.objects import Pod
from hamikit.quantity import QuantityError, parse_integer
from hamikit.shape import Role, roles_of

if TYPE_CHECKING:
    from hami_device_plugin.identity import Held


class GrantError(Exception):
    """A pod has no grant that can be carried out; the text says why and what to do."""


class Instance(msgspec.Struct, frozen=True):
    """A MIG device: its UUID, and the ids of its GPU and compute instance."""

    uuid: str
    gpu_instance: int
    compute_instance: int


class Slice(msgspec.Struct, frozen=True):
    """A share of one card: MiB, and percent of its compute (0 or 100: no limit).

    On a card in MIG mode it is an instance, known from the first start on.
    """

    uuid: str
    memory_mib: int
    cores: int
    instance: Instance | None = None


class ContainerGrant(msgspec.Struct, frozen=True):
    """What one container may use, and when it runs; `cdi_name` is set once kubelet knows it."""

    name: str
    role: Role
    slices: tuple[Slice, ...]
    priority: int = 1
    cdi_name: str = ""

    @property
    def divided(self) -> bool:
        """Whether it has MIG instances, which limit it themselves."""
        return any(part.instance for part in self.slices)


class PodGrant(msgspec.Struct, frozen=True):
    """A pod's grant as it was when the pod first came; only containers with a share are listed."""

    uid: str
    namespace: str
    name: str
    text: str
    containers: tuple[ContainerGrant, ...]
    library: str = ""
    """Version of the limiter that its containers run with, set when the first one starts."""
    checked: bool = True
    """Whether the cards were seen to carry it; with HAMi's lock it is known before that."""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """Its containers with a share."""
        return tuple(container.name for container in self.containers)

    @property
    def uuids(self) -> frozenset[str]:
        """The cards that it has a share of."""
        return frozenset(part.uuid for container in self.containers for part in container.slices)

    def of(self, container: str) -> ContainerGrant:
        """One container's share.

        Raises:
            GrantError: it has none.
        """
        for grant in self.containers:
            if grant.name == container:
                return grant
        raise GrantError(
            f"container {container!r} of pod {self.key} holds a device but its grant "
            f"({names.POD_DEVICES_ALLOCATED}={self.text!r}) has nothing for it; "
            f"delete the pod, so that it is scheduled anew by {names.SCHEDULER_NAME}"
        )

    def with_slices(self, name: str, slices: tuple[Slice, ...]) -> "PodGrant":
        """The same with one container's share exchanged.

        Raises:
            GrantError: it has none.
        """
        changed = msgspec.structs.replace(self.of(name), slices=slices)
        containers = tuple(changed if c.name == name else c for c in self.containers)
        return msgspec.structs.replace(self, containers=containers)


def slices_of(
    devices: Sequence[GrantedDevice], cards: Sequence[str] | None = None
) -> tuple[Slice, ...]:
    """Granted devices as a container's share; on other cards where they are given."""
    uuids = cards or [device.uuid for device in devices]
    return tuple(
        Slice(uuid, device.memory_mib, device.cores)
        for uuid, device in zip(uuids, devices, strict=True)
    )


def grant_text(pod: Pod) -> str:
    """The annotation that says what the pod was granted, empty without one."""
    return pod.metadata.annotations.get(names.POD_DEVICES_ALLOCATED, "")


def pod_grant(pod: Pod, text: str, node: str, family: DeviceFamily) -> PodGrant:
    """Read a pod's grant; `text` is the annotation as it was when the pod first came.

    Raises:
        GrantError: there is none, it is for another node, or it cannot be read.
    """
    if not text:
        raise GrantError(
            f"pod {pod.key} was bound to node {node} without a grant of {family.count} "
            f"(schedulerName is {pod.spec.scheduler_name!r}); delete it and let "
            f"schedulerName: {names.SCHEDULER_NAME} place it"
        )
    granted_on = pod.metadata.annotations.get(names.POD_NODE, node)
    if granted_on != node:
        raise GrantError(
            f"pod {pod.key} runs on node {node}, but its grant is for node {granted_on} "
            f"({names.POD_NODE}); delete the pod, so that it is scheduled anew"
        )
    try:
        slots = decode_grant(text)
    except CodecError as error:
        raise GrantError(
            f"the grant of pod {pod.key} cannot be read: {error}; delete the pod, so that it is "
            "scheduled anew"
        ) from error
    return PodGrant(
        uid=pod.metadata.uid,
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        text=text,
        containers=tuple(_containers(pod, slots, family)),
    )


def named(grant: PodGrant, holders: "Iterable[Held]") -> PodGrant:
    """The grant with the CDI names of these containers filled in.

    Raises:
        GrantError: a container holds more or fewer devices than it was granted.
    """
    found = {}
    for holder in holders:
        mine = grant.of(holder.container)
        if len(mine.slices) != len(holder.ids):
            raise GrantError(
                f"container {holder.container!r} of pod {grant.key} holds {len(holder.ids)} "
                f"devices, but was granted {len(mine.slices)}; delete the pod, so that it is "
                "scheduled anew"
            )
        found[mine.name] = msgspec.structs.replace(mine, cdi_name=holder.cdi_name)
    containers = tuple(found.get(c.name, c) for c in grant.containers)
    return msgspec.structs.replace(grant, containers=containers)


def _containers(
    pod: Pod, slots: tuple[tuple[GrantedDevice, ...], ...], family: DeviceFamily
) -> Iterator[ContainerGrant]:
    roles = roles_of(pod)
    for index, container in enumerate(pod.all_containers):
        slot = slots[index] if index < len(slots) else ()
        slices = slices_of([device for device in slot if device.vendor == family.vendor])
        if not slices:
            continue
        limits = (container.resources.limits if container.resources else None) or {}
        yield ContainerGrant(
            container.name, roles[index], slices, priority=_priority(limits.get(family.priority))
        )


def _priority(value: str | float | None) -> int:
    """0 is high, 1 low; what is no number is low, because a wish is no right."""
    try:
        return 1 if value is None else min(max(parse_integer(value), 0), 1)
    except QuantityError:
        return 1
