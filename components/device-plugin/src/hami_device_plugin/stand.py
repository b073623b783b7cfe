"""What there is to tell about this node's cards."""

from collections.abc import Sequence
from dataclasses import dataclass

from hamikit.codec import RegisteredDevice


@dataclass(frozen=True, slots=True)
class Stand:
    """Cards, how they are connected, why they cannot be read."""

    devices: Sequence[RegisteredDevice] = ()
    scores: str | None = None
    fault: str | None = None
