"""CDI specifications as values: the chosen cards' edits from the node's own, and ours."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hami_device_plugin.grant import ContainerGrant
from hamikit import names

MIN_VERSION = "0.5.0"
"""What our own edits need; a merged spec needs at least what the node's own spec says."""

# Fields and the CDI version that they came with: a runtime refuses a spec that has a field which is
# younger than its cdiVersion (CDI SPEC.md, "Released versions").
_SINCE = {"additionalGids": "0.7.0", "intelRdt": "0.7.0", "netDevices": "1.1.0"}

Edits = Mapping[str, Any]
"""A spec's containerEdits: mostly lists, by key; those of later CDI versions pass through."""
NOTHING: Edits = {}


class CdiError(Exception):
    """A card cannot be brought into a container; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One CDI specification of the node's NVIDIA cards."""

    path: str
    version: str
    common: Edits
    devices: Mapping[str, Edits]

    @property
    def has_hooks(self) -> bool:
        """Whether a container needs more than files and variables for its cards."""
        return any(edits.get("hooks") for edits in (self.common, *self.devices.values()))


@dataclass(frozen=True, slots=True)
class HostPaths:
    """What is mounted into one container, as the host calls it."""

    folder: str
    library: str
    preload: str
    control: str
    usage: str


class _Node(msgspec.Struct):
    path: str
    hostPath: str | None = None  # noqa: N815 - CDI's names
    permissions: str | None = None


class _Mount(msgspec.Struct):
    hostPath: str  # noqa: N815
    containerPath: str  # noqa: N815
    options: list[str] | None = None


class _Hook(msgspec.Struct):
    hookName: str  # noqa: N815
    path: str
    args: list[str] | None = None
    env: list[str] | None = None


class _Edits(msgspec.Struct):
    env: list[str] | None = None
    deviceNodes: list[_Node] | None = None  # noqa: N815
    mounts: list[_Mount] | None = None
    hooks: list[_Hook] | None = None
    additionalGids: list[int] | None = None  # noqa: N815


class _Device(msgspec.Struct):
    name: str | int
    containerEdits: _Edits | None = None  # noqa: N815


class _Document(msgspec.Struct):
    """What we rely on; what we do not know passes through to the runtime."""

    cdiVersion: str  # noqa: N815
    devices: list[_Device] | None = None
    containerEdits: _Edits | None = None  # noqa: N815


def node_spec(path: str, document: Any) -> NodeSpec | None:
    """Narrow a parsed CDI file; None when it is not about NVIDIA cards.

    Raises:
        CdiError: it claims the kind but has another form.
    """
    if not isinstance(document, Mapping) or document.get("kind") != names.CDI_KIND_NVIDIA:
        return None
    try:
        # YAML has values that our own spec, which is JSON, could not repeat: dates, loops, .nan.
        plain = json.loads(json.dumps(document, allow_nan=False))
        msgspec.convert(plain, _Document)
        version = plain["cdiVersion"]
        version_order(version)
    except (TypeError, ValueError, RecursionError, msgspec.ValidationError, CdiError) as error:
        raise CdiError(f"{path} is no CDI specification: {error}; generate it anew") from error
    devices: dict[str, Edits] = {}
    for device in plain.get("devices") or ():
        name = str(device["name"])
        if name in devices:
            raise CdiError(f"{path} has two devices {name!r}; generate it anew")
        devices[name] = _some(device.get("containerEdits"))
    return NodeSpec(path, version, _some(plain.get("containerEdits")), devices)


def _some(edits: Mapping[str, Any] | None) -> Edits:
    """Edits without those that are null: YAML writes an empty list so."""
    return {key: value for key, value in (edits or {}).items() if value is not None}


def qualified_names(specs: Sequence[NodeSpec], cards: Sequence[tuple[str, int]]) -> list[str]:
    """These cards (UUID, index) as a runtime with CDI finds them in the node's specifications.

    Raises:
        CdiError: a card is in none of the specs.
    """
    return [f"{names.CDI_KIND_NVIDIA}={_find(specs, uuid, index)[1]}" for uuid, index in cards]


def card_edits(specs: Sequence[NodeSpec], cards: Sequence[tuple[str, int]]) -> tuple[str, Edits]:
    """The CDI version and the edits that bring these cards (UUID, index) into a container.

    `specs` are ordered as the runtime's folders, a later one wins. A card goes by its UUID, or
    else by its index, whichever strategy the spec was generated with.

    Raises:
        CdiError: a card is in none of the specs.
    """
    chosen: list[Edits] = []
    versions: list[str] = []
    commons: list[Edits] = []
    for uuid, index in cards:
        spec, name = _find(specs, uuid, index)
        chosen.append(spec.devices[name])
        if spec.common not in commons:
            commons.append(spec.common)
        versions.append(spec.version)
    return max(versions, key=version_order), merge([*commons, *chosen])


def _find(specs: Sequence[NodeSpec], uuid: str, index: int) -> tuple[NodeSpec, str]:
    for spec in reversed(specs):
        for name in (uuid, str(index), f"gpu{index}"):
            if name in spec.devices:
                return spec, name
    known = "; ".join(f"{spec.path} has {', '.join(spec.devices) or 'none'}" for spec in specs)
    raise CdiError(
        f"card {uuid} (index {index}) is not in the node's CDI specification of "
        f"{names.CDI_KIND_NVIDIA} ({known}); generate it anew with `nvidia-ctk cdi generate`"
    )


def merge(parts: Iterable[Edits]) -> Edits:
    """All edits together: lists joined without doubles, of two variables of a name the last."""
    merged: dict[str, Any] = {}
    for edits in parts:
        for key, value in edits.items():
            if not isinstance(value, list):
                merged[key] = value
                continue
            present = merged.setdefault(key, [])
            present.extend(item for item in value if item not in present)
    if "env" in merged:
        last = {item.partition("=")[0]: item for item in merged["env"]}
        merged["env"] = list(last.values())
    return merged


def our_edits(
    grant: ContainerGrant, paths: HostPaths, *, visible: str, oversubscribed: bool = False
) -> Edits:
    """The limiter's files, and the variables that HAMi's users look at."""
    env = [f"{names.ENV_VISIBLE_DEVICES}={visible}"]
    env += [
        f"{names.ENV_MEMORY_LIMIT}_{i}={part.memory_mib}m" for i, part in enumerate(grant.slices)
    ]
    env += [
        f"{names.ENV_SM_LIMIT}={grant.slices[0].cores}",
        f"{names.ENV_SHARED_CACHE}={names.CONTAINER_USAGE}",
    ]
    if oversubscribed:
        env.append("CUDA_OVERSUBSCRIBE=true")
    return {
        "env": env,
        "mounts": [
            # Unlike a folder that the runtime made, a mount point cannot be renamed away.
            _mount(paths.folder, names.CONTAINER_VGPU_DIR, "ro"),
            _mount(paths.library, names.CONTAINER_LIB, "ro"),
            _mount(paths.control, names.CONTAINER_CONTROL, "ro"),
            _mount(paths.usage, names.CONTAINER_USAGE, "rw"),
            _mount(paths.preload, names.CONTAINER_PRELOAD, "ro"),
        ],
    }


def _mount(host: str, container: str, access: str) -> dict[str, Any]:
    options = [access, "nosuid", "nodev", "bind"]
    return {"hostPath": host, "containerPath": container, "options": options}


def specification(name: str, version: str, edits: Edits) -> dict[str, Any]:
    """The whole document for one container's device."""
    needed = [since for field, since in _SINCE.items() if edits.get(field)]
    return {
        "cdiVersion": max(version, MIN_VERSION, *needed, key=version_order),
        "kind": names.CDI_KIND,
        "devices": [{"name": name, "containerEdits": dict(edits)}],
    }


def version_order(version: str) -> tuple[int, ...]:
    """What CDI versions are compared by.

    Raises:
        CdiError: it is none.
    """
    try:
        return tuple(int(part) for part in version.removeprefix("v").split("."))
    except ValueError as error:
        raise CdiError(f"cdiVersion {version!r} is no version") from error
