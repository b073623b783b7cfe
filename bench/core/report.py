"""Goals: what was measured beside what was asked for."""

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure; at most `goal` unless `at_least`."""

    name: str
    value: float
    unit: str
    goal: float
    met: bool


@dataclass(slots=True)
class Report:
    """The table for people, and at the end one JSON object."""

    bench: str = "core"
    goals: list[Goal] = field(default_factory=list)

    def add(
        self, name: str, value: float, unit: str, goal: float, *, at_least: bool = False
    ) -> None:
        """Notes a figure and prints its row."""
        met = value >= goal if at_least else value <= goal
        self.goals.append(Goal(name, round(value, 3), unit, goal, met))
        sign = ">=" if at_least else "<="
        verdict = "" if met else "  NOT MET"
        print(f"{name:62s} {value:10.2f} {unit:6s} (goal {sign} {goal:g}){verdict}", flush=True)

    def end(self) -> None:
        """The last line."""
        print(json.dumps({"bench": self.bench, "goals": [asdict(goal) for goal in self.goals]}))
