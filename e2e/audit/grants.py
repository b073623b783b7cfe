"""The API's side: node announcements and pod grants out of `kubectl get -o json`."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from e2e.audit.model import Card, Container, Device, Node, Pod

REGISTER = "hami.io/node-nvidia-register"
GRANT = "hami.io/vgpu-devices-allocated"
GRANT_NODE = "hami.io/vgpu-node"
ENDED = ("Succeeded", "Failed")

Object = Mapping[str, Any]


def parse_node(obj: Object) -> Node:
    """A node and the cards that it announces."""
    name = obj["metadata"]["name"]
    text = (obj["metadata"].get("annotations") or {}).get(REGISTER)
    if not text:
        return Node(name)
    try:
        entries = json.loads(text)
        # Zero values are left out of the announcement.
        cards = tuple(
            Card(str(e["id"]), _number(e, "devmem"), _number(e, "devcore"), _number(e, "count"))
            for e in entries
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return Node(name, fault=f"{REGISTER} cannot be read: {error!r}")
    return Node(name, cards)


def _number(entry: Object, key: str) -> int:
    value = entry.get(key, 0)
    if not isinstance(value, int):
        raise TypeError(f"{key} is {value!r}")
    return value


def parse_pod(obj: Object) -> Pod | None:
    """A pod that holds devices; None for one without a grant and for one that has ended."""
    metadata, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    annotations = metadata.get("annotations") or {}
    text = annotations.get(GRANT)
    if text is None or status.get("phase") in ENDED:
        return None
    bare = _containers(spec, status)
    try:
        slots = parse_grant(text, len(bare))
        fault = ""
    except ValueError as error:
        slots, fault = [()] * len(bare), str(error)
    return Pod(
        uid=metadata["uid"],
        name=f"{metadata['namespace']}/{metadata['name']}",
        node=spec.get("nodeName", ""),
        granted_node=annotations.get(GRANT_NODE, ""),
        containers=tuple(
            Container(c.name, c.role, devices, c.running, c.ids)
            for c, devices in zip(bare, slots, strict=True)
        ),
        fault=fault,
    )


def parse_grant(text: str, containers: int) -> list[tuple[Device, ...]]:
    """One entry a container: `uuid,vendor,MiB,percent:` for each device, closed by `;`.

    Raises:
        ValueError: the text does not have this form, or not this many containers.
    """
    *slots, rest = text.split(";")
    if rest:
        raise ValueError(f"grant {text!r} does not end in ';'")
    if len(slots) != containers:
        raise ValueError(f"grant {text!r} has {len(slots)} containers, the pod {containers}")
    return [tuple(_device(piece) for piece in _pieces(slot)) for slot in slots]


def _pieces(slot: str) -> list[str]:
    if not slot:
        return []
    *pieces, rest = slot.split(":")
    if rest:
        raise ValueError(f"grant entry {slot!r} does not end in ':'")
    return pieces


def _device(piece: str) -> Device:
    fields = piece.split(",")
    if len(fields) != 4 or not fields[0]:
        raise ValueError(f"grant entry {piece!r} is not 'uuid,vendor,MiB,percent'")
    memory, cores = int(fields[2]), int(fields[3])
    if memory < 0 or not 0 <= cores <= 100:
        raise ValueError(f"grant entry {piece!r} has a number out of range")
    return Device(fields[0], memory, cores)


def _containers(spec: Object, status: Object) -> list[Container]:
    """Init containers first, then app containers: the order of the grant."""
    found = [
        (c["name"], "sidecar" if c.get("restartPolicy") == "Always" else "init")
        for c in spec.get("initContainers") or []
    ] + [(c["name"], "app") for c in spec["containers"]]
    statuses = {
        s["name"]: s
        for key in ("initContainerStatuses", "containerStatuses")
        for s in status.get(key) or []
    }
    return [_container(name, role, statuses.get(name) or {}) for name, role in found]


def _container(name: str, role: str, status: Object) -> Container:
    running = (status.get("state") or {}).get("running") is not None
    ids = {status.get("containerID")}
    for key in ("state", "lastState"):
        ids.add(((status.get(key) or {}).get("terminated") or {}).get("containerID"))
    return Container(name, role, running=running, ids=frozenset(_bare_id(i) for i in ids if i))


def _bare_id(text: str) -> str:
    return text.rpartition("://")[2]


Sum = tuple[int, int, int]
"""Tasks, MiB, percent."""


def taken(containers: Iterable[Container]) -> dict[str, Sum]:
    """What a pod takes of each card at its worst moment.

    Init containers run one after the other, each beside the sidecars that started before it; the
    app containers run together, beside all sidecars.
    """
    moments: list[list[Device]] = []
    sidecars: list[Device] = []
    apps: list[Device] = []
    for container in containers:
        if container.role == "init":
            moments.append([*sidecars, *container.granted])
        elif container.role == "sidecar":
            sidecars += container.granted
        else:
            apps += container.granted
    moments.append([*sidecars, *apps])
    worst: dict[str, Sum] = {}
    for moment in moments:
        for uuid, now in _sums(moment).items():
            before = worst.get(uuid, (0, 0, 0))
            worst[uuid] = (
                max(before[0], now[0]),
                max(before[1], now[1]),
                max(before[2], now[2]),
            )
    return worst


def _sums(devices: Iterable[Device]) -> dict[str, Sum]:
    total: dict[str, Sum] = {}
    for device in devices:
        tasks, memory, cores = total.get(device.uuid, (0, 0, 0))
        total[device.uuid] = (tasks + 1, memory + device.memory_mib, cores + device.cores)
    return total
