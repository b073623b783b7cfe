"""What kubelet gets for Allocate: a token that says nothing, or with HAMi's lock everything."""

from typing import Any

from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.cdi import Edits
from hamikit import names

_ALL = "rw"


def token(name: str) -> api.ContainerAllocateResponse:
    """A CDI device by which PreStartContainer knows the container again.

    A runtime that ignores the CDI device shall give no card instead of all.
    """
    return api.ContainerAllocateResponse(
        envs={names.ENV_VISIBLE_DEVICES: names.VISIBLE_VOID},
        cdi_devices=[api.CDIDevice(name=f"{names.CDI_KIND}={name}")],
    )


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
