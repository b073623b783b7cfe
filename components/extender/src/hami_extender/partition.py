"""Which MIG instance of a card a request gets, and where on the card it is made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

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
        return max((p.memory_mib for p in self.profiles if _free(p, self._blocked)), default=0)

    def loss(self, memory_mib: int) -> tuple[int, ...] | None:
        """What an instance of at least this memory costs the card; None where none can be made.

        The memory of the instance itself, then how many instances fewer could be made of each
        profile, of the largest first. Of two cards the one that loses less keeps larger room.
        """
        choice = self._choose(memory_mib)
        if choice is None:
            return None
        before = _remembered_room(self.profiles, frozenset(self._blocked))
        after = _remembered_room(self.profiles, frozenset((*self._blocked, choice[1])))
        lost = (b - a for b, a in zip(before, after, strict=True))
        return (choice[0].memory_mib, *lost)

    def _choose(self, memory_mib: int) -> Choice | None:
        """The smallest profile that has a place, in the place that costs the least.

        Source: spec of HAMi 2.10 for the profile and for the order of equal places. HAMi takes the
        first place in that order; ours is the first of those after which the most can be made.
        """
        return _chosen(self.profiles, frozenset(self.taken), self.spent, memory_mib)

    def _with(self, choice: Choice) -> "Partition":
        spent = tuple(other for other in self.spent if other != choice)
        return replace(self, taken=(*self.taken, choice[1]), spent=spent)

    @property
    def _blocked(self) -> tuple[Placement, ...]:
        return (*self.taken, *(place for _, place in self.spent))


KEPT = 1 << 14
"""Answers that are remembered: a card of eight slices has 417 states, one of four has 26."""


@lru_cache(KEPT)
def _chosen(
    profiles: tuple[MigProfile, ...],
    taken: frozenset[Placement],
    spent: tuple[Choice, ...],
    memory_mib: int,
) -> Choice | None:
    blocked = (*taken, *(place for _, place in spent))
    # Of equal ones the plain one: 1g.5gb sorts before 1g.5gb+me.
    for profile in sorted(profiles, key=lambda p: (p.memory_mib, p.slices, p.name)):
        if profile.memory_mib < memory_mib:
            continue
        for choice in spent:
            if choice[0] == profile:
                return choice
        if places := _in_order(profile, blocked):
            return profile, max(places, key=lambda place: room(profiles, (*blocked, place)))
    return None


def _in_order(profile: MigProfile, blocked: Sequence[Placement]) -> list[Placement]:
    """Where the profile can be made now, in HAMi's order."""
    free = _free(profile, blocked)
    return sorted(free, key=lambda p: p.start, reverse=profile.name.startswith(_FROM_THE_END))


@lru_cache(KEPT)
def _remembered_room(
    profiles: tuple[MigProfile, ...], blocked: frozenset[Placement]
) -> tuple[int, ...]:
    return room(profiles, tuple(blocked))


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
