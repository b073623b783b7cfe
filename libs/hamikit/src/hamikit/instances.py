"""MIG instances of a card: which can be made, and which was."""

from dataclasses import dataclass, field

import msgspec


class Placement(msgspec.Struct, frozen=True):
    """Memory slices of a card: the first, and how many."""

    start: int
    size: int

    def overlaps(self, other: "Placement") -> bool:
        """Whether both need a slice that there is only once."""
        return self.start < other.start + other.size and other.start < self.start + self.size


class MigProfile(msgspec.Struct, frozen=True):
    """A kind of instance, what it has, and where on its card it can be made.

    `core` is percent of the card, `slices` counts its compute slices.
    """

    name: str = ""
    memory_mib: int = msgspec.field(default=0, name="memoryMB")
    core: int = 0
    slices: int = msgspec.field(default=0, name="sliceCount")
    placements: tuple[Placement, ...] = ()


@dataclass(frozen=True, slots=True)
class MigInstance:
    """An instance that a pod was given; the last three are known once it has been made.

    Whether it has been made does not change which one it is.
    """

    profile: str
    placement: Placement
    mig_uuid: str | None = field(default=None, compare=False)
    gpu_instance_id: int | None = field(default=None, compare=False)
    compute_instance_id: int | None = field(default=None, compare=False)

    @property
    def realised(self) -> bool:
        """Whether the instance exists."""
        return self.mig_uuid is not None
