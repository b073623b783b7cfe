"""What a container says about its own slice, against what its pod was granted."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from e2e.kube import Kube, Object, wait_until
from e2e.pods import GRANT
from hamikit.codec import decode_grant
from hamikit.region import parse_control

MIB = 1024 * 1024


@dataclass(frozen=True)
class Slice:
    """A card's share: memory in MiB, cores in percent."""

    uuid: str
    memory_mib: int
    cores: int


def granted(pod: Any) -> list[tuple[Slice, ...]]:
    """The grant of each container, init containers first."""
    text = pod["metadata"].get("annotations", {}).get(GRANT, "")
    return [
        tuple(Slice(d.uuid, d.memory_mib, d.cores) for d in slot) for slot in decode_grant(text)
    ]


def reported(log: str) -> tuple[Slice, ...]:
    """What a container printed with `pods.REPORT`: its driver's view and its control file.

    Nothing when it has not printed it (yet).
    """
    lines = log.splitlines()
    if len(lines) < 2:
        return ()
    info, control = lines[:2]
    seen = {card["uuid"]: card["total"] // MIB for card in json.loads(info)["cards"]}
    limits = parse_control(base64.b64decode(control)).devices
    if {d.uuid: d.memory_limit_bytes // MIB for d in limits} != seen:
        raise AssertionError(f"the driver's view {seen} differs from the control file {limits}")
    return tuple(Slice(d.uuid, seen[d.uuid], d.core_limit_percent) for d in limits)


def wait_agreement(kube: Kube, namespace: str, pods: list[Object] | None = None) -> None:
    """Wait until each container of pods (all of the namespace) reports its grant.

    A container runs some time before what it prints can be read; a wrong report stays wrong.

    Raises:
        Deadline: with what differs.
    """

    def missing() -> str | None:
        asked = kube.pods(namespace) if pods is None else pods
        return "\n".join(differences(kube, namespace, asked)) or None

    wait_until(missing, 90)


def differences(kube: Kube, namespace: str, pods: list[Any]) -> list[str]:
    """Every container whose own report is not its grant; empty when all agree."""
    found = []
    for pod in pods:
        spec = pod["spec"]
        names = [c["name"] for c in [*spec.get("initContainers", []), *spec["containers"]]]
        for name, grant in zip(names, granted(pod), strict=True):
            log = kube.kubectl("logs", "-n", namespace, pod["metadata"]["name"], "-c", name)
            if grant and sorted(reported(log), key=str) != sorted(grant, key=str):
                found.append(f"{pod['metadata']['name']}/{name}: {log!r} but granted {grant}")
    return found
