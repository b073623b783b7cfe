"""Families of samples under construction, all with HAMi's constant label."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

ZONE: Final = "vGPU"
"""HAMi puts it on every series but its build info."""
_TOTAL: Final = "_total"


class Families:
    """Metrics with the same labels, in order of declaration; a name ending in `_total` counts."""

    def __init__(self, labels: Iterable[str], *rows: tuple[str, str]) -> None:
        names = (*labels, "zone")
        self._families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            name: CounterMetricFamily(name.removesuffix(_TOTAL), text, labels=names)
            if name.endswith(_TOTAL)
            else GaugeMetricFamily(name, text, labels=names)
            for name, text in rows
        }

    def add(self, name: str, labels: Iterable[str], value: float | None) -> None:
        """Add a sample; None adds nothing."""
        if value is not None:
            self._families[name].add_metric((*labels, ZONE), value)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())
