"""What speaks against a card, and when it no longer does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Reason(StrEnum):
    """Why a card is not fit for use, in one word for metrics."""

    MISSING = "missing"
    XID = "xid"
    ECC = "ecc"
    RESET = "reset-needed"


@dataclass(frozen=True, slots=True)
class Ill:
    """A card's reason, and the sentence for a person."""

    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Sight:
    """A card at one look; `asks` is the repair that NVML asks for, empty for none.

    `asks` is None where the driver does not tell (before 560, or no answer).
    """

    answers: bool
    asks: str | None = None


@dataclass(frozen=True, slots=True)
class _Fault:
    """An error event, and what happened since."""

    ill: Ill
    at_s: float
    repair: bool = False
    """Whether the card was away since, or NVML asked for a repair: the end of that is the cure."""


class Faults:
    """The account of all cards; fed with events and looks, asked for reasons.

    An error event counts until the card was reset: it was away and is back, or NVML no longer asks
    for a repair. Where NVML never asked for one, it counts for `quiet_s` after the last event.
    """

    def __init__(self, quiet_s: float, now: Callable[[], float]) -> None:
        self._quiet_s, self._now = quiet_s, now
        self._faults: dict[str, _Fault] = {}
        self._seen: dict[str, Ill] = {}

    def happened(self, uuid: str, reason: Reason, text: str) -> None:
        """An error event of a card."""
        self._faults[uuid] = _Fault(Ill(reason, text), self._now())

    def looked(self, sights: Mapping[str, Sight]) -> None:
        """All cards that were ever seen, as they are now."""
        self._seen = {uuid: ill for uuid, sight in sights.items() if (ill := _ill(sight))}
        for uuid, fault in list(self._faults.items()):
            sight = sights.get(uuid, Sight(answers=False))
            if uuid in self._seen or not sight.answers:
                self._faults[uuid] = replace(fault, repair=True)
            elif self._cured(fault, sight):
                del self._faults[uuid]

    def _cured(self, fault: _Fault, sight: Sight) -> bool:
        quiet = sight.asks is not None and self._now() - fault.at_s >= self._quiet_s
        return fault.repair or quiet

    def reasons(self) -> dict[str, Ill]:
        """What speaks against each card that is not fit; an event says more than a look."""
        return {**self._seen, **{uuid: fault.ill for uuid, fault in self._faults.items()}}


def _ill(sight: Sight) -> Ill | None:
    if not sight.answers:
        return Ill(Reason.MISSING, "it does not answer")
    if sight.asks:
        return Ill(Reason.RESET, f"NVML asks for {sight.asks}")
    return None
