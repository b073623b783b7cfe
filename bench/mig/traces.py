"""How often a pod finds no instance: our places beside the first free one, on the same traces."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from report import Report

from hami_device_plugin.mig import chosen
from hami_extender.partition import Choice, Partition
from hamikit.instances import MigProfile, Placement

CARDS_FOLDER = Path(__file__).resolve().parents[2] / "e2e/fakegpu/cards"
GOAL = 0.8
CARDS, EVENTS = 4, 2000
LOADS = (0.4, 0.6, 0.8)
"""Memory that pods ask for at a time, as a part of what the cards have."""

Rule = Callable[[Partition, int], Choice | None]


def models() -> Iterator[tuple[str, tuple[MigProfile, ...]]]:
    """Each model that can be divided, with the profiles that a node announces of it."""
    for path in sorted(CARDS_FOLDER.glob("*.txt")):
        lines = [line.split("=") for line in path.read_text().splitlines() if "=" in line]
        rows = [value.split() for key, value in lines if key.strip() == "mig_profile"]
        if rows:
            [model] = [value.strip() for key, value in lines if key.strip() == "model"]
            yield model, chosen(model, [_profile(row) for row in rows])


def _profile(row: Sequence[str]) -> MigProfile:
    name, _, _, slices, _, memory, _, places = row
    starts, _, size = places.partition(":")
    where = tuple(Placement(int(start), int(size)) for start in starts.split(","))
    return MigProfile(name, int(memory), 0, int(slices), where)


def ours(card: Partition, memory: int) -> Choice | None:
    """As the extender chooses."""
    return next(iter(card.choices(memory, 1)), None)


def first_fit(card: Partition, memory: int) -> Choice | None:
    """The smallest profile that has a place, in the first that is free."""
    return _first(card, memory, from_the_end=())


def hami(card: Partition, memory: int) -> Choice | None:
    """The same, but 1g and 3g begin at the card's end, as in HAMi 2.10."""
    return _first(card, memory, from_the_end=("1g.", "3g."))


def _first(card: Partition, memory: int, *, from_the_end: tuple[str, ...]) -> Choice | None:
    for profile in sorted(card.profiles, key=lambda p: (p.memory_mib, p.slices)):
        places = sorted(profile.placements, key=lambda p: p.start)
        if profile.name.startswith(from_the_end) and from_the_end:
            places.reverse()
        for place in places if profile.memory_mib >= memory else ():
            if not any(place.overlaps(other) for other in card.taken):
                return profile, place
    return None


@dataclass(slots=True)
class Pool:
    """Cards of one model under one rule."""

    profiles: tuple[MigProfile, ...]
    rule: Rule
    held: dict[int, tuple[int, Placement]] = field(default_factory=dict)
    refused: int = 0

    def come(self, pod: int, memory: int) -> None:
        """The fullest card that can takes it, as with the policy binpack."""
        taken: list[list[Placement]] = [[] for _ in range(CARDS)]
        for card, place in self.held.values():
            taken[card].append(place)
        order = sorted(range(CARDS), key=lambda c: (-sum(p.size for p in taken[c]), c))
        for card in order:
            choice = self.rule(Partition(self.profiles, tuple(taken[card])), memory)
            if choice is not None:
                self.held[pod] = card, choice[1]
                return
        self.refused += 1

    def go(self, pod: int) -> None:
        """It ends."""
        self.held.pop(pod, None)


Counts = tuple[int, ...]
"""How many instances of each profile."""


class Mover:
    """Who could move running instances: what even that refuses, no choice of places saves."""

    def __init__(self, profiles: tuple[MigProfile, ...]) -> None:
        self._profiles = tuple(sorted(profiles, key=lambda p: (p.memory_mib, p.slices)))
        self._held: dict[int, int] = {}
        self.refused = 0
        self._full = frozenset(self._fillings(()))
        self._fits = cache(self._fit)

    def come(self, pod: int, memory: int) -> None:
        """Anywhere, if all together have room."""
        counts = Counter(self._held.values())
        for number, profile in enumerate(self._profiles):
            after = tuple(counts[n] + (n == number) for n in range(len(self._profiles)))
            if profile.memory_mib >= memory and self._fits(after, CARDS):
                self._held[pod] = number
                return
        self.refused += 1

    def go(self, pod: int) -> None:
        """It ends."""
        self._held.pop(pod, None)

    def _fillings(self, taken: tuple[Placement, ...]) -> Iterator[Counts]:
        """What one card can hold, in every way that leaves no room behind the last."""
        end = max((p.start + p.size for p in taken), default=0)
        more = False
        for number, profile in enumerate(self._profiles):
            for place in (p for p in profile.placements if p.start >= end):
                more = True
                for rest in self._fillings((*taken, place)):
                    yield tuple(c + (n == number) for n, c in enumerate(rest))
        if not more:
            yield (0,) * len(self._profiles)

    def _fit(self, counts: Counts, cards: int) -> bool:
        if not any(counts):
            return True
        if not cards:
            return False
        lefts = {
            tuple(max(0, c - f) for c, f in zip(counts, full, strict=True)) for full in self._full
        }
        return any(self._fits(left, cards - 1) for left in lefts if left != counts)


Event = tuple[int, int]
"""A pod and the memory that it asks for; 0: it ends."""


def trace(profiles: Sequence[MigProfile], load: float, seed: str) -> Iterator[Event]:
    """Pods of every profile's size, small ones more often; each stays a random time."""
    rng = random.Random(seed)
    sizes = [p.memory_mib for p in profiles]
    weights = [max(sizes) / size for size in sizes]
    mean = sum(w * s for w, s in zip(weights, sizes, strict=True)) / sum(weights)
    living = load * CARDS * max(sizes) / mean
    ends: list[tuple[float, int]] = []
    for pod in range(EVENTS):
        while ends and min(ends)[0] <= pod:
            ended = min(ends)
            ends.remove(ended)
            yield ended[1], 0
        yield pod, rng.choices(sizes, weights)[0]
        ends.append((pod + rng.expovariate(1 / living), pod))


def refusals(profiles: tuple[MigProfile, ...], load: float, seed: str) -> list[int]:
    """Of the same trace: ours, first fit, HAMi, and who could move instances."""
    pools: list[Pool | Mover] = [Pool(profiles, rule) for rule in (ours, first_fit, hami)]
    pools.append(Mover(profiles))
    for pod, memory in trace(profiles, load, seed):
        for pool in pools:
            if memory:
                pool.come(pod, memory)
            else:
                pool.go(pod)
    return [pool.refused for pool in pools]


def measure(report: Report, seeds: int) -> None:
    """A table of the models, then the goal over all of them."""
    total = [0] * 4
    print(
        f"refused of {EVENTS * seeds} pods on {CARDS} cards at loads {LOADS}: "
        "ours, first fit, HAMi, with moving"
    )
    for model, profiles in models():
        said = []
        for load in LOADS:
            found = [refusals(profiles, load, f"{model} {load} {n}") for n in range(seeds)]
            counts = [sum(column) for column in zip(*found, strict=True)]
            total = [a + b for a, b in zip(total, counts, strict=True)]
            said.append(" ".join(map(str, counts)))
        print(f"  {model:45} {' | '.join(said)}")
    print(f"  {'all':45} {' '.join(map(str, total))}")
    mine, first, _, moving = total
    report.add("refused pods, share of first fit's", mine / first, "", GOAL)
    avoidable = (mine - moving) / (first - moving)
    print(f"of what moving would have saved, share of first fit's: {avoidable:.2f}")
