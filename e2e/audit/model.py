"""What the auditor knows of a cluster: what the API says, what the nodes hold, what cards see."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Device:
    """A slice of one card: MiB and percent."""

    uuid: str
    memory_mib: int
    cores: int

    def __str__(self) -> str:
        return f"{self.uuid} {self.memory_mib} MiB {self.cores} %"


@dataclass(frozen=True, slots=True)
class Container:
    """One container; `role` is init, sidecar or app; `ids` are its runtime ids without scheme."""

    name: str
    role: str
    granted: tuple[Device, ...] = ()
    running: bool = False
    ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod with a grant that has not ended; `fault` says why its grant cannot be read."""

    uid: str
    name: str
    node: str
    granted_node: str
    containers: tuple[Container, ...]
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A card as its node announces it: MiB, percent, how many tasks may share it."""

    uuid: str
    memory_mib: int
    cores: int
    slots: int


@dataclass(frozen=True, slots=True)
class Node:
    """A node; `fault` says why its announcement cannot be read."""

    name: str
    cards: tuple[Card, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """A device in a control file; 0 says that there is no limit."""

    uuid: str
    memory_bytes: int
    cores: int

    def __str__(self) -> str:
        memory = f"{self.memory_bytes / MIB:g} MiB" if self.memory_bytes else "no memory limit"
        return f"{self.uuid} {memory} {self.cores} %"


@dataclass(frozen=True, slots=True)
class ControlFile:
    """What a node enforces on one container; `fault` says why it cannot be read."""

    limits: tuple[Limit, ...] = ()
    fault: str = ""


Owner = tuple[str, str]
"""Pod UID and container, or in a process's case pod UID and container id."""


@dataclass(frozen=True, slots=True)
class Use:
    """What one process holds on one card, contexts not counted.

    `owner` is the pod UID and the container id; None for a process of no pod, or of none that can
    be told (`why`).
    """

    card: str
    pid: int
    data_bytes: int
    owner: Owner | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class NodeSide:
    """What was read on one node; None where it was not read."""

    controls: Mapping[Owner, ControlFile] | None = None
    uses: tuple[Use, ...] | None = None
    real_cards: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, as of about one moment."""

    nodes: tuple[Node, ...] = ()
    pods: tuple[Pod, ...] = ()
    sides: Mapping[str, NodeSide] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One promise that does not hold: its kind, where, whose, and a sentence with the numbers."""

    kind: str
    node: str
    subject: str
    text: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.kind}: {self.node}: {self.subject}: {self.text}"
