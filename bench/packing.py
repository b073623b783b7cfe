"""How many pods find room on a cluster that is too small, by us, by HAMi's rule, by best fit.

Ours go through the real kube-scheduler with its own scorers; the other two are worked out on paper:
pod after pod, each on the node and the cards that the rule names. Run, with PYTHONPATH=.
    python bench/packing.py [--nodes 20] [--seed 5] [--weights 10]
"""

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster import CARDS
from controlplane import ControlPlane, control_plane
from herd import (
    OURS,
    PODS,
    Bindings,
    Json,
    create,
    delete_all,
    extender,
    goal,
    node_names,
    node_object,
    pod_object,
)

from hamikit.devices import NVIDIA

CARD_MIB, CARD_CORES, CARD_SLOTS = 81920, 100, 10
SHIPPED_WEIGHT = 10
GOAL_OF_BEST_FIT = 0.97
DEMAND = 1.3
"""A trace asks for this much of the cluster's memory or compute, whichever it needs more of."""
QUIET_S = 5.0
DEFAULTS = (20, 5, (SHIPPED_WEIGHT,))
"""Nodes, seed, weights of our scores."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Cards, MiB and percent of the cores on each."""

    cards: int
    memory: int
    cores: int

    def limits(self) -> Json:
        """As a container's limits."""
        return {
            NVIDIA.count: str(self.cards),
            NVIDIA.memory: str(self.memory),
            NVIDIA.cores: str(self.cores),
        }


def _small(rng: random.Random) -> Ask:
    return Ask(1, rng.randrange(4000, 16001, 500), rng.choice((5, 10, 15, 20)))


def _large(rng: random.Random) -> Ask:
    return Ask(rng.choice((1, 2, 4, 8)), rng.choice((40000, 60000, 80000)), rng.choice((50, 80)))


def _until_enough(nodes: int, make: Callable[[], Ask], share: float = DEMAND) -> list[Ask]:
    asks: list[Ask] = []
    memory = cores = 0
    while max(memory / CARD_MIB, cores / CARD_CORES) < share * nodes * CARDS:
        asks.append(make())
        memory += asks[-1].cards * asks[-1].memory
        cores += asks[-1].cards * asks[-1].cores
    return asks


def traces(nodes: int, seed: int) -> dict[str, list[Ask]]:
    """The three workloads."""
    rng = random.Random(seed)
    small, large = lambda: _small(rng), lambda: _large(rng)

    def either() -> Ask:
        return large() if rng.random() < 0.2 else small()

    return {
        "uniform small": _until_enough(nodes, small),
        "mixed": _until_enough(nodes, either),
        "large, then small": [
            *_until_enough(nodes, large, 0.7), *_until_enough(nodes, small, 0.6),
        ],
    }  # fmt: skip


@dataclass(slots=True)
class Card:
    """What a card has left."""

    memory: int = CARD_MIB
    cores: int = CARD_CORES
    slots: int = CARD_SLOTS

    def takes(self, ask: Ask) -> bool:
        """Whether one more fits; a share of a full core is none."""
        return (
            self.slots > 0
            and self.memory >= ask.memory
            and self.cores >= ask.cores
            and (ask.cores > 0 or self.cores > 0)
        )

    def fullness(self, ask: Ask) -> float:
        """HAMi's figure of a card with what is asked of it."""
        return (
            (CARD_SLOTS - self.slots + 1) / CARD_SLOTS
            + (CARD_CORES - self.cores + ask.cores) / CARD_CORES
            + (CARD_MIB - self.memory + ask.memory) / CARD_MIB
        )

    def take(self, ask: Ask) -> None:
        """One more."""
        self.memory -= ask.memory
        self.cores -= ask.cores
        self.slots -= 1


@dataclass(slots=True)
class Machine:
    """A node's cards."""

    cards: list[Card] = field(default_factory=lambda: [Card() for _ in range(CARDS)])

    def fullness(self) -> float:
        """HAMi's figure of a node, before the pod."""
        nothing = Ask(0, 0, 0)
        return sum(card.fullness(nothing) for card in self.cards)


def hami(machines: Sequence[Machine], ask: Ask) -> list[Card]:
    """HAMi's defaults: the fullest node that fits (binpack), on it the emptiest cards (spread)."""
    for machine in sorted(machines, key=lambda m: -m.fullness()):
        able = sorted((c for c in machine.cards if c.takes(ask)), key=lambda c: c.fullness(ask))
        if len(able) >= ask.cards:
            return able[: ask.cards]
    return []


def best_fit(machines: Sequence[Machine], ask: Ask) -> list[Card]:
    """The cards that have the least left afterwards, of all nodes."""
    best: tuple[float, list[Card]] | None = None
    for machine in machines:
        able = sorted((c for c in machine.cards if c.takes(ask)), key=lambda c: -c.fullness(ask))
        chosen = able[: ask.cards]
        if len(chosen) == ask.cards:
            left = -sum(card.fullness(ask) for card in chosen)
            if best is None or left < best[0]:
                best = left, chosen
    return best[1] if best else []


def on_paper(nodes: int, asks: Sequence[Ask], rule: Callable[..., list[Card]]) -> int:
    """How many pods a rule places."""
    machines, placed = [Machine() for _ in range(nodes)], 0
    for ask in asks:
        chosen = rule(machines, ask)
        for card in chosen:
            card.take(ask)
        placed += bool(chosen)
    return placed


def through_scheduler(plane: ControlPlane, asks: Sequence[Ask], weight: int) -> int:
    """How many pods our extender and kube-scheduler place, in the trace's order."""
    # kube-scheduler reads waiting pods in the order of their names.
    pods = [pod_object(f"p-{number:05d}", ask.limits()) for number, ask in enumerate(asks)]
    create(plane.api, PODS, pods)
    bound = Bindings(plane.api)
    with extender(plane, OURS) as running, plane.scheduler(running.port, weight=weight):
        bound.wait(1, 60)
        bound.wait_quiet(len(asks), QUIET_S)
        placed = bound.count()
    bound.close()
    delete_all(plane.api, PODS)
    return placed


def goals(nodes: int, seed: int, weights: Sequence[int]) -> list[Json]:
    """Measure; prints a table."""
    found: list[Json] = []
    with control_plane() as plane:
        create(plane.api, "/api/v1/nodes", map(node_object, node_names(nodes)))
        for name, asks in traces(nodes, seed).items():
            rule, best = (on_paper(nodes, asks, how) for how in (hami, best_fit))
            ours = {weight: through_scheduler(plane, asks, weight) for weight in weights}
            said = ", ".join(f"{placed} at weight {weight}" for weight, placed in ours.items())
            print(
                f"packing, {name}: of {len(asks)} pods HAMi's rule places {rule}, best fit {best}; "
                f"ours {said}",
                flush=True,
            )
            placed = ours[weights[0]]
            found += [
                goal(f"packing, {name}: pods beyond HAMi's rule", placed - rule, "pods", 0,
                     least=True),
                goal(f"packing, {name}: of best fit", placed / best, "ratio", GOAL_OF_BEST_FIT,
                     least=True),
            ]  # fmt: skip
    return found


def main() -> None:
    """Print a table, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=DEFAULTS[0])
    parser.add_argument("--seed", type=int, default=DEFAULTS[1])
    parser.add_argument("--weights", type=int, nargs="*", default=DEFAULTS[2])
    options = parser.parse_args()
    found = goals(options.nodes, options.seed, options.weights)
    print(json.dumps({"bench": "extender packing", "goals": found}))


if __name__ == "__main__":
    main()
