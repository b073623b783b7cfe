"""How often a pod finds no instance: our choice beside the first that fits, on the same traces."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from heapq import heappop, heappush
from pathlib import Path

from report import Report

from hami_device_plugin.mig import chosen
from hami_extender.partition import Choice, Partition
from hamikit.instances import MigProfile, Placement

CARDS_FOLDER = Path(__file__).resolve().parents[2] / "e2e/fakegpu/cards"
GOAL = 0.8
CARDS, EVENTS = 4, 2000
LOADS = (0.4, 0.5, 0.6, 0.8, 1.2)
"""Memory that pods ask for at a time, as a part of what the cards have."""
GOAL_LOADS = (0.4, 0.5, 0.6, 0.8)
"""Where first fit refuses one pod in a hundred to one in ten: neither idle nor overrun."""
OTHERS = ((1, 0.2), (1, 0.6), (8, 0.6), (8, 0.7), (8, 0.8), (8, 1.0), (32, 0.8))
"""Other numbers of cards, each with a load."""

Taken = tuple[Placement, ...]
Rule = Callable[[tuple[MigProfile, ...], Sequence[Taken], int], tuple[int, Choice] | None]
"""Profiles, what is taken of each card, memory: which card, and which instance of it."""


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


def first_fit(
    profiles: tuple[MigProfile, ...], cards: Sequence[Taken], memory: int
) -> tuple[int, Choice] | None:
    """The first card that can, the smallest profile that has a place, the first that is free."""
    return _first(enumerate(cards), lambda taken: _lowest(profiles, taken, memory, ()))


def hami(
    profiles: tuple[MigProfile, ...], cards: Sequence[Taken], memory: int
) -> tuple[int, Choice] | None:
    """The fullest card, and as in HAMi 2.10 1g and 3g begin at its end."""
    return _first(_fullest(cards), lambda taken: _lowest(profiles, taken, memory, ("1g.", "3g.")))


def places_only(
    profiles: tuple[MigProfile, ...], cards: Sequence[Taken], memory: int
) -> tuple[int, Choice] | None:
    """The fullest card, and the place of it that leaves most room: half of what ours does."""
    return _first(_fullest(cards), lambda taken: _ours(profiles, taken, memory))


def ours(
    profiles: tuple[MigProfile, ...], cards: Sequence[Taken], memory: int
) -> tuple[int, Choice] | None:
    """As the extender chooses with binpack: the card that loses least, its fullest of equals."""
    losses = [
        (number, Partition(profiles, taken).loss(memory)) for number, taken in _fullest(cards)
    ]
    able = [(loss, turn, number) for turn, (number, loss) in enumerate(losses) if loss is not None]
    if not able:
        return None
    number = min(able)[2]
    choice = _ours(profiles, cards[number], memory)
    return None if choice is None else (number, choice)


def _fullest(cards: Sequence[Taken]) -> list[tuple[int, Taken]]:
    return sorted(enumerate(cards), key=lambda card: (-sum(p.size for p in card[1]), card[0]))


def _first(
    cards: Iterable[tuple[int, Taken]], choose: Callable[[Taken], Choice | None]
) -> tuple[int, Choice] | None:
    for number, taken in cards:
        if (choice := choose(taken)) is not None:
            return number, choice
    return None


def _ours(profiles: tuple[MigProfile, ...], taken: Taken, memory: int) -> Choice | None:
    return next(iter(Partition(profiles, taken).choices(memory, 1)), None)


@cache
def _lowest(
    profiles: tuple[MigProfile, ...], taken: Taken, memory: int, from_the_end: tuple[str, ...]
) -> Choice | None:
    for profile in sorted(profiles, key=lambda p: (p.memory_mib, p.slices)):
        places = sorted(profile.placements, key=lambda p: p.start)
        if from_the_end and profile.name.startswith(from_the_end):
            places.reverse()
        for place in places if profile.memory_mib >= memory else ():
            if not any(place.overlaps(other) for other in taken):
                return profile, place
    return None


class Pool:
    """Cards of one model under one rule."""

    def __init__(self, profiles: tuple[MigProfile, ...], rule: Rule, cards: int) -> None:
        self._profiles, self._rule = profiles, rule
        self._taken: list[Taken] = [()] * cards
        self._held: dict[int, tuple[int, Placement]] = {}
        self.refused = 0

    def come(self, pod: int, memory: int) -> None:
        """A pod gets what the rule says, if anything."""
        found = self._rule(self._profiles, self._taken, memory)
        if found is None:
            self.refused += 1
            return
        card, (_, place) = found
        self._held[pod] = card, place
        self._taken[card] = tuple(sorted((*self._taken[card], place), key=lambda p: p.start))

    def go(self, pod: int) -> None:
        """It ends."""
        if pod in self._held:
            card, place = self._held.pop(pod)
            self._taken[card] = tuple(p for p in self._taken[card] if p != place)


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
RULES: dict[str, Rule] = {
    "first fit": first_fit, "HAMi": hami, "places only": places_only, "ours": ours,
}  # fmt: skip


def trace(profiles: Sequence[MigProfile], load: float, cards: int, seed: str) -> Iterator[Event]:
    """Pods of every profile's size, small ones more often; each stays a random time."""
    rng = random.Random(seed)
    sizes = [p.memory_mib for p in profiles]
    weights = [max(sizes) / size for size in sizes]
    mean = sum(w * s for w, s in zip(weights, sizes, strict=True)) / sum(weights)
    living = load * cards * max(sizes) / mean
    ends: list[tuple[float, int]] = []
    for pod in range(EVENTS):
        while ends and ends[0][0] <= pod:
            yield heappop(ends)[1], 0
        yield pod, rng.choices(sizes, weights)[0]
        heappush(ends, (pod + rng.expovariate(1 / living), pod))


def refusals(
    profiles: tuple[MigProfile, ...], load: float, cards: int, seed: str
) -> dict[str, int]:
    """By rule, of the same trace; `moving` where that can be worked out."""
    pools: dict[str, Pool | Mover] = {n: Pool(profiles, r, cards) for n, r in RULES.items()}
    if cards == CARDS:
        pools["moving"] = Mover(profiles)
    for pod, memory in trace(profiles, load, cards, seed):
        for pool in pools.values():
            if memory:
                pool.come(pod, memory)
            else:
                pool.go(pod)
    return {name: pool.refused for name, pool in pools.items()}


def measure(report: Report, seeds: int) -> None:
    """A table of the loads and one of the numbers of cards, over all models; then the goal."""
    total: Counter[str] = Counter()
    tables = dict(models())
    pods = EVENTS * len(tables)
    print(
        f"refused of {pods} pods a seed, {len(tables)} models, share of first fit's ({seeds} seeds)"
    )
    for cards, load in [*((CARDS, load) for load in LOADS), *OTHERS]:
        runs: list[Counter[str]] = []
        for number in range(seeds):
            run: Counter[str] = Counter()
            for model, profiles in tables.items():
                run.update(refusals(profiles, load, cards, f"{model} {load} {number}"))
            runs.append(run)
        together = sum(runs, Counter())
        print(
            f"  {cards:3} cards, load {load}: {_said(together, pods * seeds)}; ours {_spread(runs)}"
        )
        if cards == CARDS and load in GOAL_LOADS:
            total.update(together)
    report.add("refused pods, share of first fit's", total["ours"] / total["first fit"], "", GOAL)
    avoidable = (total["ours"] - total["moving"]) / (total["first fit"] - total["moving"])
    print(f"of what moving would have saved, share of first fit's: {avoidable:.2f}")


def _said(refused: Counter[str], pods: int) -> str:
    first = refused["first fit"]
    shares = [
        f"{name} {refused[name] / max(first, 1):.2f}" for name in refused if name != "first fit"
    ]
    return f"first fit {100 * first / pods:.2f} %, {', '.join(shares)}"


def _spread(runs: Sequence[Counter[str]]) -> str:
    """The least and the greatest share of a seed."""
    shares = [run["ours"] / max(run["first fit"], 1) for run in runs]
    return f"{min(shares):.2f} to {max(shares):.2f} by seed"
