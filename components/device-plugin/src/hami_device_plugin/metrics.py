"""What the device plugin counts."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hami_device_plugin.faults import Ill

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25)


class Metrics:
    """One set of metrics on a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.allocations = Counter(
            "hami_device_plugin_allocations",
            "Containers that kubelet asked devices for.",
            registry=registry,
        )
        self.registrations = Counter(
            "hami_device_plugin_registrations",
            "Times that kubelet accepted this plugin.",
            registry=registry,
        )
        self.prestart = Histogram(
            "hami_device_plugin_prestart_seconds",
            "How long container starts were prepared, by outcome: ok, or why not.",
            ["outcome"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.cards = Gauge(
            "hami_device_plugin_cards", "Cards of this node.", ["health"], registry=registry
        )
        self.slots = Gauge(
            "hami_device_plugin_slots",
            "Device ids announced to kubelet.",
            ["health"],
            registry=registry,
        )

        self.unfit = Gauge(
            "hami_device_plugin_card_unfit",
            "1 for each card that is not fit for use: missing, xid, ecc or reset-needed.",
            ["device_uuid", "reason"],
            registry=registry,
        )
        self.xids = Counter(
            "hami_device_plugin_xids",
            "Error events (XID) of a card, those that programs cause included.",
            ["device_uuid", "xid"],
            registry=registry,
        )
        self.odd_links = Gauge(
            "hami_device_plugin_nvlinks_disagree",
            "1 for each pair of cards whose two ends tell different numbers of NVLinks.",
            ["device_uuid", "peer_uuid"],
            registry=registry,
        )
        self.nvml = Gauge("hami_device_plugin_nvml_up", "Whether NVML answers.", registry=registry)
        self.settings = Gauge(
            "hami_device_plugin_settings_valid",
            "0 while the settings on disk cannot be used and older ones are in force.",
            registry=registry,
        )

    def tell_unfit(self, ills: Mapping[str, Ill]) -> None:
        """Set the gauge of cards that are not fit."""
        self.unfit.clear()
        for uuid, ill in ills.items():
            self.unfit.labels(uuid, ill.reason).set(1)

    def tell_odd_links(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Set the gauge of pairs that disagree."""
        self.odd_links.clear()
        for one, other in pairs:
            self.odd_links.labels(one, other).set(1)

    def count_cards(self, healthy: int, unhealthy: int) -> None:
        """Set the gauge of cards."""
        self.cards.labels("healthy").set(healthy)
        self.cards.labels("unhealthy").set(unhealthy)

    def count_slots(self, healthy: int, unhealthy: int) -> None:
        """Set the gauge of slots."""
        self.slots.labels("healthy").set(healthy)
        self.slots.labels("unhealthy").set(unhealthy)
