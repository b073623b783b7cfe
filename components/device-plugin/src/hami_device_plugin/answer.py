"""What kubelet gets for Allocate: a token that says nothing, or with HAMi's lock everything."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.cdi import Edits
from hamikit import names

_ALL = "rw"
CDI_CRI, CDI_ANNOTATIONS, ENVVAR = "cdi-cri", "cdi-annotations", "envvar"
STRATEGIES = (ENVVAR, CDI_CRI, CDI_ANNOTATIONS)
"""HAMi's device list strategies; without one of CDI an NVIDIA runtime goes before CDI."""


def token(name: str) -> api.ContainerAllocateResponse:
    """A CDI device by which PreStartContainer knows the container again.

    A runtime that ignores the CDI device shall give no card instead of all.
    """
    return api.ContainerAllocateResponse(
        envs={names.ENV_VISIBLE_DEVICES: names.VISIBLE_VOID},
        cdi_devices=[api.CDIDevice(name=f"{names.CDI_KIND}={name}")],
    )


@dataclass(frozen=True, slots=True)
class CdiTelling:
    """How kubelet is told of a container's CDI devices when Allocate says all there is."""

    strategies: frozenset[str] = frozenset()
    prefix: str = names.CDI_ANNOTATION_PREFIX
    new_id: Callable[[], str] = lambda: str(uuid4())

    @property
    def preferred(self) -> bool:
        """Whether the operator wants CDI also where an NVIDIA runtime could bring the cards."""
        return bool(self.strategies & {CDI_CRI, CDI_ANNOTATIONS})

    def tell(self, devices: Sequence[str]) -> api.ContainerAllocateResponse:
        """These devices (`vendor.com/class=name`): in the field for them, unless otherwise said."""
        answer = api.ContainerAllocateResponse()
        if devices and (CDI_CRI in self.strategies or not self.preferred):
            answer.cdi_devices.extend(api.CDIDevice(name=device) for device in devices)
        if devices and CDI_ANNOTATIONS in self.strategies:
            key = f"{self.prefix}{names.CDI_ANNOTATION}{self.new_id()}"
            answer.annotations[key] = ",".join(devices)
        return answer


def spelled_out(edits: Edits) -> api.ContainerAllocateResponse:
    """The same as these edits of a CDI specification, for a runtime without CDI."""
    pairs = (item.partition("=") for item in edits.get("env", ()))
    return api.ContainerAllocateResponse(
        envs={name: value for name, _, value in pairs},
        mounts=[_mount(mount) for mount in edits.get("mounts", ())],
        devices=[_device(node) for node in edits.get("deviceNodes", ())],
    )


def _mount(mount: dict[str, Any]) -> api.Mount:
    return api.Mount(
        container_path=mount["containerPath"],
        host_path=mount["hostPath"],
        read_only="ro" in mount.get("options", ()),
    )


def _device(node: dict[str, Any]) -> api.DeviceSpec:
    return api.DeviceSpec(
        container_path=node["path"],
        host_path=node.get("hostPath", node["path"]),
        permissions=node.get("permissions", _ALL),
    )


def is_spelled_out(answer: api.ContainerAllocateResponse) -> bool:
    """Whether this is our answer with HAMi's lock: no other plugin mounts a control file."""
    return any(mount.container_path == names.CONTAINER_CONTROL for mount in answer.mounts)
