"""Which findings stand: those that were there for long enough to be no passing sight."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hami_monitor.audit import Finding, Kind, Place

CONFIRM_S: Final = 0.2
UNKNOWN_S: Final = 5.0
"""A pod, or a container's id in its status, may reach us this much later than its first process."""
REPEAT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class News:
    """What there is to tell after a look.

    `standing` are all confirmed findings, `told` those to be told now: for the first time, or
    again because they still stand. `soonest_s` is when to look again to confirm the others.
    """

    standing: tuple[Finding, ...] = ()
    told: tuple[Finding, ...] = ()
    soonest_s: float = math.inf


@dataclass(slots=True)
class _Seen:
    since: float
    told: float | None = None


@dataclass(slots=True)
class Tracker:
    """Remembers since when each difference has been there without a break."""

    _seen: dict[Place, _Seen] = field(default_factory=dict)
    totals: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    """How many findings have been confirmed so far."""

    def look(self, findings: Iterable[Finding], now: float) -> News:
        """Take in what is there now, `now` in seconds of a steady clock."""
        present: Mapping[Place, Finding] = {finding.place: finding for finding in findings}
        self._seen = {place: self._seen.get(place) or _Seen(now) for place in present}
        standing: list[Finding] = []
        told: list[Finding] = []
        soonest = math.inf
        for place, finding in present.items():
            seen = self._seen[place]
            left = seen.since + confirm_s(place) - now
            if left > 0:
                soonest = min(soonest, left)
                continue
            standing.append(finding)
            if seen.told is None:
                self.totals[place.kind] += 1
            if seen.told is None or now - seen.told >= REPEAT_S:
                seen.told = now
                told.append(finding)
        return News(tuple(standing), tuple(told), soonest)


def confirm_s(place: Place) -> float:
    """How long a difference must have been there: longer where it may be our own lag."""
    unknown = place.kind is Kind.UNKNOWN_POD or not place.container
    return UNKNOWN_S if unknown else CONFIRM_S
