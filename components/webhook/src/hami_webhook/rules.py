"""What the operator decided about admission."""

from dataclasses import dataclass, field
from typing import Any

from hamikit import names
from hamikit.devices import NVIDIA, DeviceFamily


@dataclass(frozen=True, slots=True)
class Rules:
    """The families whose resources we own, and the scheduler that places their pods.

    With `take_default` a pod that names Kubernetes' default scheduler is taken over (the API
    server writes that name into every pod that named none). An empty `scheduler_name` leaves the
    pods' scheduler alone.
    """

    families: tuple[DeviceFamily, ...] = (NVIDIA,)
    scheduler_name: str = names.SCHEDULER_NAME
    take_default: bool = True
    known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What was worked out under these rules; they never change, so it holds as long as they do."""

    def concerns(self, scheduler_name: str) -> bool:
        """Whether a pod that names this scheduler is ours to look at."""
        if not scheduler_name or scheduler_name == self.scheduler_name:
            return True
        return self.take_default and scheduler_name == "default-scheduler"
