"""Metrics as text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, Summary, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    UntypedMetricFamily,
)

from hamikit.exposition import render


class These:
    """A collector of given metrics."""

    def __init__(self, metrics):
        self._metrics = metrics

    def collect(self):
        """Them."""
        return iter(self._metrics)


def both(*metrics):
    """Our text and the library's."""
    registry = CollectorRegistry()
    registry.register(These(metrics))
    return render(registry), generate_latest(registry)


NAMES = st.sampled_from(["a", "b_total", "c_created", "d_gsum", "node.card", "_e:f", "0g", "größe"])
LABELS = st.lists(st.sampled_from(["pod", "zone", "card.uuid", "a", "größe"]), unique=True)
TEXTS = st.text(st.sampled_from('ab"\\\n#{}=, é\U0001f600'))
VALUES = st.one_of(
    st.floats(), st.integers(-(2**63), 2**63), st.booleans(), st.sampled_from([0.0, -0.0])
)


@st.composite
def families(draw):
    """A gauge, a counter or something else, with or without samples and times."""
    kind = draw(st.sampled_from([GaugeMetricFamily, CounterMetricFamily, UntypedMetricFamily]))
    labels = draw(LABELS)
    family = kind(draw(NAMES), draw(TEXTS), labels=labels)
    row = st.tuples(st.lists(TEXTS, min_size=len(labels), max_size=len(labels)), VALUES)
    for values, value in draw(st.lists(row, max_size=4)):
        family.add_metric(values, value, timestamp=draw(st.sampled_from([None, None, 12.5])))
    return family


@given(st.lists(families(), max_size=4))
def test_the_text_is_the_librarys(metrics):
    """Byte by byte, whatever names, labels and values there are, and again when remembered."""
    for _ in range(2):
        ours, theirs = both(*metrics)
        assert ours == theirs


@pytest.mark.parametrize("value", [0.0, -0.0, 1, True, 1e9, 1.5e-7, math.nan, math.inf, -math.inf])
def test_a_value_is_not_taken_for_an_equal_one(value):
    """0.0 and -0.0, 1 and True are equal, but not the same text or the same for all callers."""
    for first in (0.0, -0.0, 1, True, value):
        family = GaugeMetricFamily("a", "A.", value=first)
        assert both(family)[0] == both(family)[1]


def test_what_has_several_names_in_one_metric_is_the_librarys():
    """Histograms, summaries, infos and counters with the time of their creation."""
    registry = CollectorRegistry()
    Histogram("h", "H.", ["x"], registry=registry).labels('a"b').observe(2)
    Summary("s", "S.", registry=registry).observe(1)
    Info("i", "I.", registry=registry).info({"version": "1"})
    Counter("c", "C.", ["x"], registry=registry).labels("y").inc()
    assert render(registry) == generate_latest(registry)


def test_a_gauge_with_a_sample_of_another_name_is_the_librarys():
    """Such as the sums of a gauge histogram, which stand at the end."""
    metric = Metric("a", "A.", "gauge")
    metric.add_sample("a", {}, 1)
    metric.add_sample("a_gsum", {"x": "y"}, 2)
    assert both(metric)[0] == both(metric)[1]
