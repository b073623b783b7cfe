"""What this node has to give as of now: the last report of its cards under the operator's word."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from hami_device_plugin import inventory, links
from hami_device_plugin.health import Report
from hami_device_plugin.lock import physical_id
from hami_device_plugin.metrics import Metrics
from hami_device_plugin.mig import Division
from hami_device_plugin.settings import Settings, changes
from hami_device_plugin.stand import Stand
from hami_device_plugin.stock import Stock
from hami_device_plugin.topology import Scores, encode_scores
from hamikit.gpu import Card

log = structlog.get_logger()

Handles = Sequence[tuple[Card, Any]]


class Standing:
    """Fed from the cards' thread and with new settings; `on_news` hears of what others must know.

    With `nvml` pairs of cards are scored when all can be asked.
    """

    def __init__(
        self,
        settings: Settings,
        stock: Stock,
        metrics: Metrics,
        *,
        on_news: Callable[[], None],
        nvml: Callable[[], Any] | None = None,
        divide: Callable[[Handles], Mapping[str, Division]] = lambda _: {},
    ) -> None:
        self.settings = settings
        self._stock, self._metrics, self._on_news, self._nvml = stock, metrics, on_news, nvml
        self._divide = divide
        self._divisions: Mapping[str, Division] = {}
        self._report: Report | None = None
        self._scored: tuple[str, ...] = ()
        self._scores: Scores = {}

    def report(self, report: Report) -> None:
        """What a look or an error event told."""
        fault_is_news = self._report is None or report.fault != self._report.fault
        self._report = report
        self._metrics.tell_unfit(report.ills)
        self._metrics.nvml.set(report.fault is None)
        scored = self._score(report)
        if report.handles:
            self._divisions = self._divide(report.handles)
        if self._take_over(report) or scored or fault_is_news:
            self._on_news()

    def adopt(self, settings: Settings) -> None:
        """Go on with other settings."""
        log.info("settings changed", **changes(self.settings, settings))
        self.settings = settings
        if self._report is not None and self._take_over(self._report):
            self._on_news()

    def _take_over(self, report: Report) -> bool:
        devices = inventory.announced(report.cards, self.settings, report.ills, self._divisions)
        healthy = sum(device.health for device in devices)
        self._metrics.count_cards(healthy, len(devices) - healthy)
        news = self._stock.update(devices)
        if news:
            log.info("cards", healthy=healthy, unhealthy=len(devices) - healthy)
        return news

    def _score(self, report: Report) -> bool:
        """Score the cards anew when there are others than the last time."""
        present = tuple(card.uuid for card, _ in report.handles)
        if self._nvml is None or set(present) <= set(self._scored):
            return False
        self._scored = present
        found, odd = links.scores(self._nvml(), report.handles)
        self._metrics.tell_odd_links(odd)
        for one, other in odd:
            log.warning("cards disagree on their NVLinks, their pair scores 0", cards=[one, other])
        news = found != self._scores
        self._scores = found
        return news

    def stand(self) -> Stand | None:
        """What the node's object is to say; None before the first report."""
        devices, report = self._stock.devices, self._report
        if devices is None or report is None:
            return None
        scores = encode_scores(self._scores, [device.id for device in devices])
        return Stand(devices, scores, report.fault)

    def numa(self, slot: str) -> int | None:
        """The NUMA node to hint at for a slot: only where slots stand for cards."""
        if not (self.settings.numa_hints and self._stock.by_card and self._report):
            return None
        card = physical_id(slot)
        return next((found.numa for found in self._report.cards if found.uuid == card), None)
