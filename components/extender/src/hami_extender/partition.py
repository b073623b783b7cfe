"""Which MIG instance of a card a request gets, and where on the card it is made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hamikit.instances import MigProfile, Placement

_FROM_THE_END = ("1g.", "3g.")
"""Profiles that HAMi puts at the end of a card first; the others begin at its start."""

Choice = tuple[MigProfile, Placement]


@dataclass(frozen=True, slots=True)
class Partition:
    """What can be made of a card and where nothing can be any more.

    `spent` are instances that only init containers of the pod in question have used: they stay as
    long as the pod, and its later containers may have them.
    """

    profiles: tuple[MigProfile, ...]
    taken: tuple[Placement, ...] = ()
    spent: tuple[Choice, ...] = ()

    def choices(self, memory_mib: int, count: int) -> list[Choice]:
        """As many instances of at least this memory as can be made, but no more than `count`."""
        found: list[Choice] = []
        left = self
        while len(found) < count and (choice := left._choose(memory_mib)) is not None:
            found.append(choice)
            left = left._with(choice)
        return found

    def after(self, choices: Iterable[Choice], *, passing: bool) -> "Partition":
        """The card once a container has these; `passing`: an init container, which ends."""
        left = self
        if passing:
            return replace(self, spent=tuple(dict.fromkeys((*self.spent, *choices))))
        for choice in choices:
            left = left._with(choice)
        return left

    @property
    def free(self) -> dict[str, int]:
        """How many places of each profile nothing covers; they may overlap each other."""
        return {p.name: len(_free(p, self._blocked)) for p in self.profiles}

    @property
    def largest_mib(self) -> int:
        """Memory of the largest instance that could be made now."""
        return max((p.memory_mib for p in self.profiles if self._places(p)), default=0)

    def _choose(self, memory_mib: int) -> Choice | None:
        """The smallest profile that has a place, in the place that costs the least.

        Source: spec of HAMi 2.10 for the profile and for the order of equal places. HAMi takes the
        first place in that order; ours is the first of those after which the most can be made.
        """
        for profile in sorted(self.profiles, key=lambda p: (p.memory_mib, p.slices)):
            if profile.memory_mib < memory_mib:
                continue
            for choice in self.spent:
                if choice[0] == profile:
                    return choice
            if places := self._places(profile):
                return profile, max(places, key=self._room_beside)
        return None

    def _with(self, choice: Choice) -> "Partition":
        spent = tuple(other for other in self.spent if other != choice)
        return replace(self, taken=(*self.taken, choice[1]), spent=spent)

    @property
    def _blocked(self) -> tuple[Placement, ...]:
        return (*self.taken, *(place for _, place in self.spent))

    def _places(self, profile: MigProfile) -> list[Placement]:
        """Where the profile can be made now, in HAMi's order."""
        free = _free(profile, self._blocked)
        return sorted(free, key=lambda p: p.start, reverse=profile.name.startswith(_FROM_THE_END))

    def _room_beside(self, place: Placement) -> tuple[int, ...]:
        return room(self.profiles, (*self._blocked, place))


def room(profiles: Iterable[MigProfile], blocked: Sequence[Placement]) -> tuple[int, ...]:
    """How many instances of each profile could be made, of the largest first.

    Of two cards the one with the greater room can be given a larger instance, or more of them.
    """
    largest_first = sorted(profiles, key=lambda p: (-p.memory_mib, -p.slices, p.name))
    return tuple(_side_by_side(_free(profile, blocked)) for profile in largest_first)


def _free(profile: MigProfile, blocked: Sequence[Placement]) -> list[Placement]:
    return [p for p in profile.placements if not any(p.overlaps(other) for other in blocked)]


def _side_by_side(places: Iterable[Placement]) -> int:
    """How many of these places do not overlap, at most: the one that ends first is always right."""
    number = end = 0
    for place in sorted(places, key=lambda p: p.start + p.size):
        if place.start >= end:
            number, end = number + 1, place.start + place.size
    return number
