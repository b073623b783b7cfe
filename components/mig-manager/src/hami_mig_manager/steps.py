"""What can be done about MIG on a node, one thing at a time."""

from dataclasses import dataclass

from hami_mig_manager.journal import Entry
from hami_mig_manager.state import Claim, Instance, Spot
from hamikit.mig import BlockedPlacement, MigAllocation


@dataclass(frozen=True, slots=True)
class Create:
    """Make a GPU instance and its compute instance, for this pod."""

    spot: Spot
    pod: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Make the compute instance of a GPU instance that has none."""

    instance: Instance
    pod: str


@dataclass(frozen=True, slots=True)
class Destroy:
    """Take an instance of ours away."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Record:
    """Tell the pod which instances it has."""

    claim: Claim
    allocations: tuple[MigAllocation, ...]


@dataclass(frozen=True, slots=True)
class Evict:
    """Have the pod placed anew: it cannot get its instance."""

    claim: Claim
    reason: str
    text: str


Step = Create | Complete | Destroy | Record | Evict


@dataclass(frozen=True, slots=True)
class Wait:
    """A pod that has to wait, and for what."""

    claim: Claim
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What the node's object has to say first, and what is to be done then.

    `again_at` is when to look again even if nothing happens, in Unix seconds.
    """

    journal: tuple[Entry, ...]
    blocked: tuple[BlockedPlacement, ...]
    steps: tuple[Step, ...] = ()
    waits: tuple[Wait, ...] = ()
    again_at: float | None = None
