"""What dashboards are made of: panels with their queries.

Series of the extender are the same from each of its replicas, so `max by` comes before any sum.
`$node`, `$card`, `$namespace` and `$pod` are the dashboards' variables, regular expressions.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["stat", "lines", "bars", "table"]
Unit = Literal["bytes", "percentunit", "short", "s"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: PromQL queries with the legend of each."""

    title: str
    unit: Unit
    queries: tuple[tuple[str, str], ...]
    kind: Kind = "lines"
    text: str = ""
    width: int = 12
    """In Grafana's grid of 24."""


@dataclass(frozen=True, slots=True)
class Variable:
    """What a dashboard is narrowed down by: the values of a label of a series."""

    name: str
    series: str
    label: str


@dataclass(frozen=True, slots=True)
class Page:
    """One dashboard."""

    uid: str
    title: str
    text: str
    variables: tuple[Variable, ...]
    panels: tuple[Panel, ...]


MEMORY = "hami_gpu_memory_limit_bytes"
GRANTED = "hami_gpu_memory_allocated_bytes"
CARD = "node, device_uuid"
POD = "namespace, pod, device_uuid"


def card(series: str, where: str = 'node=~"$node"') -> str:
    """A series of the extender or the monitor, once for each card."""
    return f"max by ({CARD}) ({series}{{{where}}})"


def granted(series: str, where: str = "") -> str:
    """A series of the extender about grants, once for each pod and card."""
    return f"sum by ({POD}) (max by ({POD}, container_index) ({series}{{{where}}}))"


def ratio(part: str, whole: str) -> str:
    """The part of a whole, 0 to 1; nothing where there is none of it."""
    return f"sum({part}) / (sum({whole}) > 0)"
