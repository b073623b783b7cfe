"""A pod's wishes about cards, ready to be tested card by card."""

from dataclasses import dataclass

from hami_extender.inventory import Card
from hami_extender.score import MUTEX, TOPOLOGY
from hamikit.ascend import SOFT_MODE
from hamikit.devices import NVIDIA, DeviceFamily
from hamikit.selectors import Selectors
from hamikit.weights import EQUAL, Weights, parse_weights

TYPE_MISMATCH = "CardTypeMismatch"
MODE_MISMATCH = "ModeNotFit"


def _entries(text: str) -> tuple[str, ...] | None:
    """A comma list; None when blank, which is no constraint. Empty entries match nothing."""
    if not text.strip():
        return None
    return tuple(filter(None, (entry.strip() for entry in text.split(","))))


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pod wants of cards; None is no constraint.

    `mutex`: only cards without any task will do. `topology`: cards that are connected well.
    `soft`: the cards' node has to share them without templates.
    """

    use_type: tuple[str, ...] | None
    nouse_type: tuple[str, ...] | None
    use_uuid: tuple[str, ...] | None
    nouse_uuid: tuple[str, ...] | None
    mode: str
    numa_bind: bool
    policy: str
    mutex: bool
    topology: bool
    soft: bool
    select: str
    weights: Weights = EQUAL

    @classmethod
    def of(cls, selectors: Selectors, policy: str, family: DeviceFamily = NVIDIA) -> "Wish":
        """The wishes of a pod; `policy` orders the cards where the pod does not say.

        Raises:
            WeightsError: weights that are none.
        """
        chosen = selectors.gpu_policy or policy
        words = [word.strip() for word in chosen.split(",")]
        soft = bool(family.soft_mode) and selectors.vgpu_mode == family.soft_mode
        return cls(
            use_type=_entries(selectors.use_type.lower()),
            nouse_type=_entries(selectors.nouse_type.lower()),
            use_uuid=_entries(selectors.use_uuid),
            nouse_uuid=_entries(selectors.nouse_uuid),
            mode="" if family.soft_mode else selectors.vgpu_mode,
            numa_bind=selectors.numa_bind,
            policy=chosen,
            mutex=MUTEX in words,
            topology=TOPOLOGY in words,
            soft=soft,
            select=family.select,
            weights=parse_weights(selectors.weights),
        )

    def mismatch(self, card: Card) -> str | None:
        """Why a card of this type or mode will not do.

        Types match by substring, in any case; a mode must be named by the wish.
        """
        kind = card.type.lower()
        if self.use_type is not None and not any(entry in kind for entry in self.use_type):
            return TYPE_MISMATCH
        if self.nouse_type is not None and any(entry in kind for entry in self.nouse_type):
            return TYPE_MISMATCH
        if self.mode and card.mode not in self.mode:
            return TYPE_MISMATCH
        return MODE_MISMATCH if self.soft and card.mode != SOFT_MODE else None

    def allows_uuid(self, uuid: str) -> bool:
        """UUIDs match exactly."""
        if self.use_uuid is not None and uuid not in self.use_uuid:
            return False
        return self.nouse_uuid is None or uuid not in self.nouse_uuid

    @property
    def any_uuid(self) -> bool:
        """Whether every UUID is allowed."""
        return self.use_uuid is None and self.nouse_uuid is None
