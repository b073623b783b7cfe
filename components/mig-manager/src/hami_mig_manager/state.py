"""What there is on a node: cards and their instances, and the pods that were promised some."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hami_mig_manager import reasons
from hamikit.instances import MigProfile, Placement
from hamikit.mig import MigAllocation


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """Where an instance is or is to be: a card, a profile, its first memory slice, how many."""

    card: str
    profile: str
    start: int
    size: int

    @property
    def placement(self) -> Placement:
        """The slices."""
        return Placement(self.start, self.size)

    def __str__(self) -> str:
        return f"{self.profile} at slice {self.start} of card {self.card}"

    def overlaps(self, other: "Spot") -> bool:
        """Whether only one of the two can exist."""
        return self.card == other.card and self.placement.overlaps(other.placement)


@dataclass(frozen=True, slots=True)
class Compute:
    """A compute instance: its id within the GPU instance, and the UUID that containers see."""

    id: int
    uuid: str


@dataclass(frozen=True, slots=True)
class Instance:
    """A GPU instance as NVML tells; `busy` when a process uses it or that cannot be told."""

    spot: Spot
    id: int
    computes: tuple[Compute, ...] = ()
    busy: bool = False

    @property
    def uuid(self) -> str | None:
        """The UUID that a container is given, None while there is no compute instance."""
        return self.computes[0].uuid if self.computes else None


@dataclass(frozen=True, slots=True)
class Card:
    """A card that can be divided.

    `enabled` is the mode that it is in, `pending` the one that it is in after a reset. `fault` says
    why it could not be read; then nothing else of it counts. `busy`: a process is on it.
    """

    uuid: str
    index: int = 0
    enabled: bool = True
    pending: bool = True
    profiles: tuple[MigProfile, ...] = ()
    instances: tuple[Instance, ...] = ()
    busy: bool = False
    fault: str | None = None

    def profile(self, name: str) -> MigProfile | None:
        """The profile of this name.

        HAMi's allowlist has names that NVML spells otherwise (7g.79gb); as there, what stands
        before the dot decides then, and no variant (1g.5gb+me, 1g.24gb-me) is meant.
        """
        exact = next((p for p in self.profiles if p.name == name), None)
        slices = name.partition(".")[0]
        plain = [p for p in self.profiles if p.name.partition(".")[0] == slices]
        plain = [p for p in plain if "+" not in p.name and "-" not in p.name]
        # 1g.10gb of a card of 40 GB is a variant of 1g.5gb with more memory.
        return exact or min(plain, key=lambda p: p.memory_mib, default=None)

    def refuses(self, spot: Spot) -> tuple[str, str] | None:
        """Why there can be no such instance in the present mode: a reason and its sentence."""
        if not self.enabled:
            if self.pending:
                return reasons.RESET_REQUIRED, "MIG is to be switched on by a reset of its card"
            return reasons.MIG_OFF, "MIG is switched off on its card"
        profile = next((p for p in self.profiles if p.name == spot.profile), None)
        if profile is None:
            return reasons.NO_SUCH_PROFILE, f"its card has no profile {spot.profile}"
        if spot.placement not in profile.placements:
            return reasons.NO_SUCH_PLACEMENT, f"{spot} is no legal placement"
        return None


@dataclass(frozen=True, slots=True)
class Claim:
    """A pod of this node that holds or is promised instances, and has not ended.

    An `ending` pod keeps what it has and gets nothing more. Without `allocations` what it holds
    could not be read. `bound_at` is when it came to the node, in Unix seconds.
    """

    uid: str
    key: str
    version: str = ""
    allocations: tuple[MigAllocation, ...] | None = ()
    ending: bool = False
    bound_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """What became of the last attempt on a spot; not to be repeated before `again_at`, if ever.

    `half_made`: something may be left of it.
    """

    reason: str
    text: str
    tries: int = 1
    again_at: float | None = None
    half_made: bool = False

    @property
    def final(self) -> bool:
        """Whether a further attempt cannot help."""
        return self.again_at is None


Attempt = tuple[str, Spot]
"""Whose attempt: a pod's UID, or nothing for a destruction; and where."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known from earlier rounds of this process; empty after a restart."""

    troubles: Mapping[Attempt, Trouble] = field(default_factory=dict)
