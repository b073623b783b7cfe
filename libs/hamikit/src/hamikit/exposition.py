"""Metrics as text, exactly as prometheus_client writes them, without working out labels each time.

Most of a scrape's time would go into escaping the same labels again. So what stands before a value
is taken from prometheus_client once and remembered; what is not plain is left to it altogether.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

_PLAIN: Final = {"gauge": "", "counter": "_total"}
"""Types whose samples have one name, and what that has after the metric's."""
_HEADS: Final = 16384
"""Some ten times what a full node has; about 300 bytes each."""
_VALUES: Final = 4096


class _Only(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        """The one."""
        yield self._metric


def render(registry: CollectorRegistry) -> bytes:
    """The same as `prometheus_client.generate_latest`, sooner."""
    return b"".join(map(_metric, registry.collect()))


def _metric(metric: Metric) -> bytes:
    suffix = _PLAIN.get(metric.type)
    if suffix is None:
        return _library(metric)
    name, lines = metric.name + suffix, [_header(metric.name, metric.documentation, metric.type)]
    for sample in metric.samples:
        if sample.name != name or sample.timestamp is not None:
            return _library(metric)
        value = sample.value
        # 0.0 and -0.0 are one key.
        text = _value(value) if value else _written(value)
        lines.append(f"{_head(name, *sample.labels.items())}{text}\n")
    return "".join(lines).encode()


def _library(metric: Metric) -> bytes:
    return generate_latest(_Only(metric))


@lru_cache(_HEADS)
def _head(name: str, *labels: tuple[str, str]) -> str:
    """What stands before the value of a sample."""
    metric = Metric(name, "", "gauge")
    metric.samples = [Sample(name, dict(labels), 0.0)]
    return _library(metric).decode().rpartition("\n# ")[2].partition("\n")[2].removesuffix("0.0\n")


@lru_cache(_VALUES)
def _header(name: str, text: str, kind: str) -> str:
    return _library(Metric(name, text, kind)).decode()


_written: Callable[[float], str] = floatToGoString
_value = lru_cache(_VALUES)(_written)
