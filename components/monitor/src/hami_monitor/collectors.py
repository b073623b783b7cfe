"""The metrics of the program and of the node's cards; what is not known is absent, never zero."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hami_monitor.gauges import Families
from hami_monitor.host import CardReading, Host

MIB: Final = 1 << 20
_CARD: Final = ("node", "device_index", "device_uuid", "device_type")
_CARD_METRICS: Final = (
    ("hami_host_gpu_memory_used_bytes", "Memory in use on the card, by all processes."),
    ("hami_host_gpu_utilization_ratio", "Busy time of the card in percent."),
    (
        "hami_host_gpu_memory_controller_utilization_ratio",
        "Busy time of the card's memory in percent.",
    ),
    ("hami_host_gpu_memory_total_bytes", "Memory of the card."),
    ("hami_host_gpu_busy_ratio", "Busy time of the card, 0 to 1."),
    ("hami_host_gpu_memory_controller_busy_ratio", "Busy time of the card's memory, 0 to 1."),
)


class BuildInfo(Collector):
    """`hami_build_info`, with the labels that HAMi's dashboards know."""

    def __init__(self) -> None:
        self._version = version("hami-monitor")  # it is looked for in all of sys.path

    def collect(self) -> Iterator[Metric]:
        """One sample."""
        family = GaugeMetricFamily(
            "hami_build_info",
            "Which program this is.",
            labels=("version", "revision", "build_date", "go_version", "compiler", "platform"),
        )
        compiler = f"{platform.python_implementation()} {platform.python_version()}"
        system = f"{sys.platform}/{platform.machine()}"
        # No Go here, and images are named by version: these three stay empty.
        family.add_metric((self._version, "", "", "", compiler, system), 1)
        yield family


class HostCollector(Collector):
    """The node's cards, as NVML last told them, and how NVML is doing."""

    def __init__(self, host: Host, node: str) -> None:
        self._host, self._node = host, node

    def collect(self) -> Iterator[Metric]:
        """The cards as last heard of; none while NVML is silent."""
        state = self._host.state()
        cards = Families(_CARD, *_CARD_METRICS)
        for reading in state.cards:
            self._add(cards, reading)
        yield from cards
        nvml = Families(("node",), ("hami_monitor_nvml_up", "Whether NVML answers in time."))
        nvml.add("hami_monitor_nvml_up", (self._node,), state.up)
        yield from nvml
        name = "hami_monitor_nvml_answers_total"
        text = "Answers of NVML, good or bad, that the audit has taken in."
        answers = Families(("node",), (name, text))
        # What else is scraped with it is at least as new: containers are read after this.
        answers.add(name, (self._node,), state.answers)
        yield from answers
        name = "hami_monitor_nvml_last_error_timestamp_seconds"
        errors = Families(("node", "error"), (name, "When NVML last failed, by what it said."))
        for error, when in sorted(state.errors.items()):
            errors.add(name, (self._node, error), when)
        yield from errors

    def _add(self, cards: Families, reading: CardReading) -> None:
        card, busy, memory = reading.card, reading.utilization, reading.memory_utilization
        labels = (self._node, str(card.index), card.uuid, device_type(card.name))
        total = None if card.memory_mib is None else card.memory_mib * MIB
        for (name, _), value in zip(
            _CARD_METRICS,
            (reading.used_bytes, busy, memory, total, ratio(busy), ratio(memory)),
            strict=True,
        ):
            cards.add(name, labels, value)


def ratio(percent: float | None) -> float | None:
    """Percent as a part of 1."""
    return None if percent is None else percent / 100


def device_type(name: str) -> str:
    """A card's type as its node registers it: prefixed once."""
    return name if name.startswith("NVIDIA") else f"NVIDIA-{name}"


def register(registry: CollectorRegistry, *collectors: Collector) -> CollectorRegistry:
    """Put the collectors into the registry, in the order in which they shall appear."""
    for collector in collectors:
        registry.register(collector)
    return registry
