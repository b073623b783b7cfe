"""Which container each process on a card belongs to."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from hami_monitor.cgroups import Owner
from hami_monitor.host import CardReading
from hami_monitor.occupants import Occupant
from hami_monitor.processes import Process
from hamikit.objects import Pod

_RUNTIME_SEPARATOR: Final = "://"


class Attributed(NamedTuple):
    """A process on the card `uuid`, and whose it is.

    `in_pod` is the UID of the pod that its cgroup names, empty for a process of the host; `pod` is
    None where the API server does not know that pod, `container` empty where its status does not
    name the container (yet).
    """

    uuid: str
    occupant: Occupant
    process: Process
    in_pod: str = ""
    pod: Pod | None = None
    container: str = ""


def attribute(
    cards: Iterable[CardReading], processes: Mapping[int, Process], pods: Mapping[str, Pod]
) -> tuple[Attributed, ...]:
    """Every process on the cards that is still there; `pods` by UID as kubelet knows them."""
    known: dict[tuple[Owner, ...], tuple[str, Pod | None, str]] = {}
    found: list[Attributed] = []
    for reading in cards:
        uuid = reading.card.uuid
        for occupant in reading.occupants or ():
            process = processes.get(occupant.pid)
            if process is None:
                continue
            whose = known.get(process.owners)
            if whose is None:
                whose = known[process.owners] = _whose(process.owners, pods)
            found.append(Attributed(uuid, occupant, process, *whose))
    return tuple(found)


def _whose(owners: Sequence[Owner], pods: Mapping[str, Pod]) -> tuple[str, Pod | None, str]:
    """The pod's UID, the pod and the container of a process with these cgroups."""
    for owner in owners:
        pod = pods.get(owner.pod_uid)
        if pod is not None:
            return owner.pod_uid, pod, containers_by_id(pod).get(owner.container_id, "")
    return owners[-1].pod_uid if owners else "", None, ""


def containers_by_id(pod: Pod) -> dict[str, str]:
    """Names of a pod's containers by the id that the runtime gave them."""
    status = pod.status
    every = (
        *(status.init_container_statuses or ()),
        *(status.container_statuses or ()),
        *(status.ephemeral_container_statuses or ()),
    )
    return {
        s.container_id.rpartition(_RUNTIME_SEPARATOR)[2]: s.name for s in every if s.container_id
    }


class HostUse(NamedTuple):
    """What NVML says a container uses of one card; None where it does not tell."""

    memory_bytes: int | None
    utilization: int | None


@dataclass(frozen=True, slots=True)
class Sight:
    """What NVML says, container by container."""

    uses: Mapping[tuple[str, str, str], HostUse]
    cards: frozenset[str]

    def of(self, pod_uid: str, container: str, uuid: str) -> HostUse | None:
        """A container's use of a card; None where NVML does not list the card's processes."""
        if uuid not in self.cards:
            return None
        return self.uses.get((pod_uid, container, uuid), HostUse(0, 0))


NO_SIGHT: Final = Sight({}, frozenset())


def sight(cards: Iterable[CardReading], found: Iterable[Attributed]) -> Sight:
    """NVML's figures by container and card; a sum of which one part is unknown is unknown."""
    parts: dict[tuple[str, str, str], list[Occupant]] = defaultdict(list)
    for one in found:
        if one.pod is not None and one.container:
            parts[one.in_pod, one.container, one.uuid].append(one.occupant)
    uses = {
        place: HostUse(_sum([o.memory_bytes for o in here]), _sum([o.utilization for o in here]))
        for place, here in parts.items()
    }
    told = frozenset(reading.card.uuid for reading in cards if reading.occupants is not None)
    return Sight(uses, told)


def _sum(parts: list[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
