"""MIG instances that were made by hand, as resources: `nvidia.com/mig-1g.5gb` and so on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.carving import Capabilities, instance_edits, our_edits
from hami_device_plugin.cdi import MIN_VERSION, NodeSpec, merge, specification, version_order
from hami_device_plugin.grant import ContainerGrant, Instance, Slice
from hami_device_plugin.lock import LockError
from hami_device_plugin.made import Made
from hami_device_plugin.mig import Division
from hamikit import names
from hamikit.shape import Role


def offered(made: Iterable[Made]) -> dict[str, tuple[Made, ...]]:
    """Instances by their resource, as NVIDIA's device plugin names it (strategy `mixed`).

    One that shares its GPU instance with others is not offered: they would see each other's memory.
    """
    found: dict[str, list[Made]] = {}
    for one in made:
        if one.whole:
            resource = names.RESOURCE_MIG_PREFIX + one.profile.replace("+", ".")
            found.setdefault(resource, []).append(one)
    return {name: tuple(sorted(some, key=lambda m: m.uuid)) for name, some in found.items()}


def document(
    made: Iterable[Made],
    specs: Sequence[NodeSpec],
    divisions: Callable[[str], Division | None],
    capabilities: Capabilities,
) -> Mapping[str, Any] | None:
    """The CDI specification of these instances, each a device by its UUID; None without any.

    Raises:
        CdiError: the node has no specification of its cards.
    """
    devices, version = [], MIN_VERSION
    for one in made:
        instance = Instance(one.uuid, one.gpu_instance, one.compute_instance)
        container = ContainerGrant("", Role.APP, (Slice(one.card, 0, 0, instance),))
        needs, edits = instance_edits(specs, container, divisions, capabilities)
        edits.append(our_edits(names.VISIBLE_VOID))
        single = specification(one.uuid, needs, merge(edits))
        devices += single["devices"]
        version = max(version, single["cdiVersion"], key=version_order)
    if not devices:
        return None
    return {"cdiVersion": version, "kind": names.CDI_KIND_MIG, "devices": devices}


class InstanceAllocator:
    """Gives a container the very instances that kubelet chose; `way` is the node's way to cards."""

    def __init__(self, way: Callable[[], str]) -> None:
        self._way = way

    async def answers(
        self, requests: Sequence[Sequence[str]]
    ) -> list[api.ContainerAllocateResponse]:
        """For each container's instances.

        Raises:
            LockError: kubelet is to fail the pod.
        """
        return [self._answer(uuids) for uuids in requests]

    def _answer(self, uuids: Sequence[str]) -> api.ContainerAllocateResponse:
        way = self._way()
        if way == names.CARDS_BY_RUNTIME:
            return api.ContainerAllocateResponse(envs={names.ENV_VISIBLE_DEVICES: ",".join(uuids)})
        if way != names.CARDS_BY_CDI:
            raise LockError(
                "MIG instances come into a container by CDI or an NVIDIA runtime, and this node's "
                "runtime does neither"
            )
        return api.ContainerAllocateResponse(
            envs={names.ENV_VISIBLE_DEVICES: names.VISIBLE_VOID},
            cdi_devices=[api.CDIDevice(name=f"{names.CDI_KIND_MIG}={uuid}") for uuid in uuids],
        )

    async def preferred(
        self, wishes: Sequence[tuple[Sequence[str], Sequence[str], int]]
    ) -> list[list[str]]:
        """None is better than another."""
        return [[] for _ in wishes]
