"""What the manager counts, and what is on the cards, as Prometheus metrics."""

from collections import Counter as Tally
from collections.abc import Iterator
from typing import Final

import prometheus_client as prometheus
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hami_mig_manager.state import Instance, Spot
from hami_mig_manager.steps import Wait
from hami_mig_manager.view import View, ours, place

log = structlog.get_logger()

POD, UNUSED, HAND = "pod", "unused", "hand"
BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics(Collector):
    """Hears what is done and seen, and tells it when scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "hami_mig_manager_"
        self._creations = prometheus.Counter(
            f"{name}creations", "Instances made.", registry=registry
        )
        self._destructions = prometheus.Counter(
            f"{name}destructions", "Instances destroyed.", registry=registry
        )
        self._failures = prometheus.Counter(
            f"{name}failures",
            "Attempts that failed: to create, to destroy, or to give a pod its instance at all.",
            ["step", "reason"],
            registry=registry,
        )
        self._durations = prometheus.Histogram(
            f"{name}creation_duration_seconds",
            "How long making an instance took.",
            buckets=BUCKETS,
            registry=registry,
        )
        self.nvml = prometheus.Gauge(
            "hami_mig_manager_nvml_up", "Whether NVML answers.", registry=registry
        )
        self._view: View | None = None
        self._waits: tuple[Wait, ...] = ()
        registry.register(self)

    def made(self, spot: Spot, seconds: float) -> None:
        """Count an instance; which one is in the log."""
        del spot
        self._creations.inc()
        self._durations.observe(seconds)

    def destroyed(self, spot: Spot) -> None:
        """Count one that is gone."""
        del spot
        self._destructions.inc()

    def failed(self, step: str, reason: str) -> None:
        """Count a failure."""
        self._failures.labels(step, reason).inc()

    def looked(self, view: View, waits: tuple[Wait, ...]) -> None:
        """Remember what there is."""
        for wait in set(waits) - set(self._waits):
            log.info("pod waits", pod=wait.claim.key, text=wait.text)
        self._view, self._waits = view, waits

    def collect(self) -> Iterator[Metric]:
        """The cards at the last look; nothing before the first."""
        view, waits = self._view, self._waits
        if view is None:
            return
        yield GaugeMetricFamily(
            "hami_mig_manager_waiting_pods",
            "Pods that wait for an instance to be made or let go.",
            value=len({wait.claim.uid for wait in waits}),
        )
        yield from _instances(view)
        yield from _places(view)


def _instances(view: View) -> Iterator[Metric]:
    labels = ["device_uuid", "profile", "owner"]
    counts = GaugeMetricFamily(
        "hami_mig_manager_instances", "GPU instances of a card.", labels=labels
    )
    ages = GaugeMetricFamily(
        "hami_mig_manager_instance_age_seconds",
        "Age of an instance of ours.",
        labels=[*labels, "placement_start", "mig_uuid"],
    )
    made = ours(view)
    held = {view.spot(one) for claim in view.claims for one in claim.allocations or ()}

    def owner(instance: Instance) -> str:
        if instance.spot not in made:
            return HAND
        return POD if instance.spot in held else UNUSED

    found = view.instances()
    tally = Tally((i.spot.card, i.spot.profile, owner(i)) for i in found.values())
    for key, count in sorted(tally.items()):
        counts.add_metric(list(key), count)
    for spot, (entry, instance) in sorted(made.items(), key=lambda pair: pair[0]):
        key = (spot.card, spot.profile, owner(instance))
        values = [*key, str(spot.start), instance.uuid or ""]
        ages.add_metric(values, max(0.0, view.now - entry.since))
    yield counts
    yield ages


def _places(view: View) -> Iterator[Metric]:
    """What the scheduler could still reserve, counted as it counts: by pods and blocks."""
    free = GaugeMetricFamily(
        "hami_mig_manager_free_placements",
        "Placements of a profile that no pod has and nothing blocks; they may overlap.",
        labels=["device_uuid", "profile"],
    )
    blocked = GaugeMetricFamily(
        "hami_mig_manager_blocked_placements",
        "Placements where nothing can be made, by reason.",
        labels=["device_uuid", "reason"],
    )
    taken = [view.spot(one) for claim in view.claims for one in claim.allocations or ()]
    taken += [place(one) for one in view.blocked]
    for card in view.cards.values():
        if card.fault is not None or not card.enabled:
            continue
        for profile in card.profiles:
            spots = [Spot(card.uuid, profile.name, p.start, p.size) for p in profile.placements]
            count = sum(not any(spot.overlaps(other) for other in taken) for spot in spots)
            free.add_metric([card.uuid, profile.name], count)
    for key, count in sorted(Tally((b.gpu_uuid, b.reason) for b in view.blocked).items()):
        blocked.add_metric(list(key), count)
    yield free
    yield blocked
