"""Whose device ids these are: kubelet's checkpoint, which holds our own answers to Allocate."""

import base64
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import msgspec
from google.protobuf.message import DecodeError

from hami_device_plugin.answer import is_spelled_out
from hami_device_plugin.api.deviceplugin_pb2 import ContainerAllocateResponse
from hamikit import names

# A letter and hex digits: the name becomes part of a file's name.
_NAME = re.compile(re.escape(names.CDI_KIND) + "=([a-z][0-9a-f]{8,40})")


class IdentityError(Exception):
    """kubelet's checkpoint cannot be read."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one container holds of one resource.

    `cdi_name` is the name our Allocate invented for it, `spelled_out` whether our Allocate told
    all there is (HAMi's lock protocol); with neither, another plugin answered.
    """

    pod_uid: str
    container: str
    resource: str
    ids: frozenset[str]
    cdi_name: str
    spelled_out: bool = False

    @property
    def ours(self) -> bool:
        """Whether this plugin answered Allocate."""
        return self.spelled_out or bool(self.cdi_name)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """kubelet's memory of devices: who holds what, and which ids were healthy last."""

    held: tuple[Held, ...] = ()
    registered: frozenset[tuple[str, str]] = frozenset()

    def with_ids(self, resource: str, ids: Collection[str]) -> tuple[Held, ...]:
        """The containers that hold exactly these ids; an init and an app container may both."""
        wanted = frozenset(ids)
        return tuple(h for h in self.held if h.resource == resource and h.ids == wanted)

    def ids_of(self, resource: str) -> frozenset[str]:
        """Every id of a resource that some container holds."""
        return frozenset(i for h in self.held if h.resource == resource for i in h.ids)

    def registered_of(self, resource: str) -> frozenset[str]:
        """The ids of a resource that were healthy when kubelet last wrote."""
        return frozenset(i for name, i in self.registered if name == resource)


class _Entry(msgspec.Struct, rename="pascal"):
    pod_uid: str = msgspec.field(name="PodUID")
    container_name: str
    resource_name: str
    device_ids: dict[str, list[str] | None] | list[str] | None = msgspec.field(
        name="DeviceIDs", default=None
    )
    alloc_resp: str | None = None


class _Data(msgspec.Struct, rename="pascal"):
    pod_device_entries: list[_Entry] | None = None
    registered_devices: dict[str, list[str] | None] | None = None


class _File(msgspec.Struct, rename="pascal"):
    data: _Data


_DECODER = msgspec.json.Decoder(_File)


def parse(text: bytes) -> Checkpoint:
    """Read `kubelet_internal_checkpoint` (Kubernetes 1.20 and later).

    Raises:
        IdentityError: it has another form.
    """
    try:
        data = _DECODER.decode(text).data
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IdentityError(f"kubelet's checkpoint has another form: {error}") from error
    registered = (data.registered_devices or {}).items()
    return Checkpoint(
        tuple(map(_held, data.pod_device_entries or [])),
        frozenset((resource, i) for resource, ids in registered for i in ids or ()),
    )


def _held(entry: _Entry) -> Held:
    grouped = entry.device_ids or {}
    lists = grouped.values() if isinstance(grouped, dict) else [grouped]
    cdi_name, spelled_out = _told(entry.alloc_resp or "")
    return Held(
        pod_uid=entry.pod_uid,
        container=entry.container_name,
        resource=entry.resource_name,
        ids=frozenset(i for ids in lists for i in ids or ()),
        cdi_name=cdi_name,
        spelled_out=spelled_out,
    )


# The file has every container of the node, and is read at each start of one of them.
@lru_cache(maxsize=1024)
def _told(text: str) -> tuple[str, bool]:
    answer = _answer(text)
    return _cdi_name(answer), is_spelled_out(answer)


def _answer(text: str) -> ContainerAllocateResponse:
    try:
        return ContainerAllocateResponse.FromString(base64.b64decode(text))
    except (ValueError, DecodeError):
        return ContainerAllocateResponse()  # another plugin's affair


def _cdi_name(answer: ContainerAllocateResponse) -> str:
    found = (_NAME.fullmatch(device.name) for device in answer.cdi_devices)
    return next((match[1] for match in found if match), "")
