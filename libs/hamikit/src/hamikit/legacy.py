"""Metrics under the names that HAMi gave them before 2.10, for those who ask for them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class Former:
    """A former name, the present one, and the former labels with the present ones."""

    name: str
    present: str
    labels: Mapping[str, str]


More = Callable[[Mapping[str, Metric]], Iterator[Metric]]
"""What a new name and new labels do not make; told the present metrics by name."""


def _no_more(_present: Mapping[str, Metric]) -> Iterator[Metric]:
    return iter(())


class WithLegacy(Collector):
    """Another collector's metrics, and then the same under their former names."""

    def __init__(self, collector: Collector, rows: Sequence[Former], more: More = _no_more) -> None:
        self._collector, self._rows, self._more = collector, rows, more

    def collect(self) -> Iterator[Metric]:
        """Present names first."""
        present = list(self._collector.collect())
        yield from present
        yield from former(present, self._rows)
        yield from self._more({metric.name: metric for metric in present})


def former(present: Iterable[Metric], rows: Sequence[Former]) -> Iterator[Metric]:
    """The metrics under their former names, as far as there are any."""
    by_name = {metric.name: metric for metric in present}
    for row in rows:
        metric = by_name.get(row.present)
        if metric is not None:
            family = GaugeMetricFamily(row.name, metric.documentation, labels=list(row.labels))
            for sample in metric.samples:
                family.add_metric(
                    [sample.labels[label] for label in row.labels.values()], sample.value
                )
            yield family
