"""Metrics: HAMi v2.10's view of cards and grants, and how our own verbs fare."""

import platform
from collections import Counter as Counted
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from hami_extender.inventory import MODE_MIG, Card
from hami_extender.placement import Refusal, partitions
from hami_extender.question import Question
from hami_extender.quota import Standing
from hami_extender.snapshot import Snapshot
from hami_extender.texts import words_of
from hami_extender.usage import Holding, Kind, NodeState
from hamikit.footprint import NOTHING, Share
from hamikit.objects import Pod

MIB = 2**20
ZONE = "vGPU"
"""HAMi puts this constant label on all series but hami_build_info."""

_CARD = ("zone", "node", "device_uuid", "device_index", "device_type")
_CARD_CORES = ("zone", "node", "device_uuid", "device_index", "device_cores", "device_type")
_OVERVIEW = (
    "zone",
    "node",
    "device_uuid",
    "device_index",
    "device_cores",
    "device_memory_limit",
    "device_type",
)
_GRANT = ("zone", "namespace", "node", "pod", "container_index", "device_uuid")

_INSTANCE = (
    "zone",
    "node",
    "device_uuid",
    "device_index",
    "mig_uuid",
    "profile",
    "gpu_instance_id",
    "compute_instance_id",
    "placement_start",
    "placement_size",
)
MIG_INSTANCE = "hami_node_gpu_mig_instance_info"
MIG_FREE = "hami_extender_mig_free_placements"

Families = dict[str, GaugeMetricFamily]


def _families() -> Families:
    rows = (
        ("hami_gpu_memory_limit_bytes", "Memory that a card announces.", _CARD),
        ("hami_gpu_core_limit_ratio", "Compute that a card announces, in percent.", _CARD),
        ("hami_gpu_memory_allocated_bytes", "Memory granted on a card.", _CARD_CORES),
        ("hami_gpu_core_allocated_ratio", "Compute granted on a card, in percent.", _CARD),
        ("hami_gpu_shared_count", "Tasks that share a card.", _CARD),
        ("hami_node_gpu_overview", "Memory granted on a card, with its limits.", _OVERVIEW),
        ("hami_node_gpu_memory_allocated_ratio", "Part of a card's memory granted, 0..1.", _CARD),
        ("hami_vgpu_memory_allocated_bytes", "Memory granted to a container.", _GRANT),
        ("hami_vgpu_core_allocated_ratio", "Compute granted to a container, percent.", _GRANT),
        (MIG_INSTANCE, "A MIG instance that has been made for a pod.", _INSTANCE),
        (
            MIG_FREE,
            "Placements of a profile that no pod has and nothing blocks; they may overlap.",
            ("node", "device_uuid", "profile"),
        ),
        (
            "hami_resource_quota_used",
            "What a namespace holds of a limited resource.",
            ("zone", "namespace", "quota_name", "limit"),
        ),
        (
            "hami_resource_quota_limit",
            "What its quotas allow a namespace.",
            ("zone", "namespace", "quota_name"),
        ),
        (
            "hami_extender_missing_cards",
            "Cards that pods hold and their node does not announce.",
            ("node",),
        ),
        ("hami_extender_holdings", "Pods that hold devices, by how sure it is.", ("kind",)),
    )
    return {name: GaugeMetricFamily(name, text, labels=labels) for name, text, labels in rows}


class ClusterCollector(Collector):
    """Reads the snapshot at each scrape."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[GaugeMetricFamily]:
        """The families without samples, so that registering does not need the snapshot."""
        return list(_families().values())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All series of the present view."""
        families = _families()
        with self._snapshot.lock:
            nodes = [
                (
                    state.name,
                    state.facts.cards if state.facts else (),
                    dict(state.used),
                    len(state.missing_cards()),
                )
                for state in self._snapshot.ledger.nodes.values()
            ]
            free = list(_free_places(self._snapshot.ledger.nodes.values()))
            holdings = list(self._snapshot.ledger.holdings.values())
            standings = list(self._snapshot.budget.standings(self._snapshot.families))
        for name, cards, used, missing in nodes:
            for card in cards:
                _card(families, name, card, used.get(card.uuid, NOTHING))
            if missing:
                families["hami_extender_missing_cards"].add_metric((name,), missing)
        divided = {(n, c.uuid): c for n, cards, _, _ in nodes for c in cards if c.mode == MODE_MIG}
        if divided:
            _instances(families[MIG_INSTANCE], holdings, divided)
        for labels, number in free:
            families[MIG_FREE].add_metric(labels, number)
        _grants(families, holdings)
        for standing in standings:
            _quota(families, standing)
        yield from families.values()


def _card(families: Families, node: str, card: Card, used: Share) -> None:
    index, cores = str(card.index), str(card.cores)
    plain = (ZONE, node, card.uuid, index, card.type)
    memory = used.memory_mib * MIB
    for name, value in (
        ("hami_gpu_memory_limit_bytes", card.memory_mib * MIB),
        ("hami_gpu_core_limit_ratio", card.cores),
        ("hami_gpu_core_allocated_ratio", used.cores),
        ("hami_gpu_shared_count", used.slots),
    ):
        families[name].add_metric(plain, value)
    families["hami_gpu_memory_allocated_bytes"].add_metric(
        (ZONE, node, card.uuid, index, cores, card.type), memory
    )
    families["hami_node_gpu_overview"].add_metric(
        (ZONE, node, card.uuid, index, cores, str(card.memory_mib), card.type), memory
    )
    if card.memory_mib > 0:
        families["hami_node_gpu_memory_allocated_ratio"].add_metric(
            plain, used.memory_mib / card.memory_mib
        )


def _instances(
    family: GaugeMetricFamily, holdings: Iterable[Holding], cards: Mapping[tuple[str, str], Card]
) -> None:
    found = {
        (
            ZONE, holding.node, device.uuid, str(card.index), instance.mig_uuid, instance.profile,
            str(instance.gpu_instance_id), str(instance.compute_instance_id),
            str(instance.placement.start), str(instance.placement.size),
        )
        for holding in holdings
        for slot in holding.slots
        for device in slot
        if (instance := device.instance) is not None
        and instance.mig_uuid is not None
        and (card := cards.get((holding.node, device.uuid))) is not None
    }  # fmt: skip
    for labels in sorted(found):
        family.add_metric(labels, 1)


def _free_places(nodes: Iterable[NodeState]) -> Iterator[tuple[tuple[str, str, str], int]]:
    """Of every card that MIG divides; one that holds what nobody knows has no figures."""
    for state in nodes:
        for offer in state.facts.offers if state.facts else ():
            for position, partition in partitions(state, offer).items():
                for profile, number in partition.free.items():
                    yield (state.name, offer.cards[position].uuid, profile), number


def _quota(families: Families, standing: Standing) -> None:
    plain = (ZONE, standing.namespace, standing.resource)
    families["hami_resource_quota_used"].add_metric(
        (*plain, str(standing.limit or 0)), standing.used
    )
    if standing.limit is not None:
        families["hami_resource_quota_limit"].add_metric(plain, standing.limit)


def _grants(families: Families, holdings: list[Holding]) -> None:
    # A name may be in use again while the former pod still ends: one series, or none is scraped.
    memory: dict[tuple[str, ...], int] = {}
    cores: dict[tuple[str, ...], int] = {}
    kinds = dict.fromkeys(Kind, 0)
    for holding in holdings:
        kinds[holding.kind] += 1
        if holding.kind is Kind.CLAIM:
            continue
        namespace, _, pod = holding.pod.partition("/")
        for index, slot in enumerate(holding.slots):
            for device in slot:
                labels = (ZONE, namespace, holding.node, pod, str(index), device.uuid)
                memory[labels] = memory.get(labels, 0) + device.memory_mib * MIB
                cores[labels] = cores.get(labels, 0) + device.cores
    for name, values in (
        ("hami_vgpu_memory_allocated_bytes", memory),
        ("hami_vgpu_core_allocated_ratio", cores),
    ):
        for series, value in values.items():
            families[name].add_metric(series, value)
    for kind, number in kinds.items():
        families["hami_extender_holdings"].add_metric((kind.value,), number)


class VerbMetrics:
    """Counters and timings of the extender's own work."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        build = Gauge(
            "hami_build_info",
            "This build.",
            ("version", "revision", "build_date", "go_version", "compiler", "platform"),
            registry=registry,
        )
        build.labels(
            version, "", "", "", platform.python_implementation(), platform.platform(terse=True)
        ).set(1)
        self._seconds = Histogram(
            "hami_extender_verb_duration_seconds",
            "Time from request to answer.",
            ("verb",),
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=registry,
        )
        self._timers: dict[str, Histogram] = {}
        self._binds = Counter(
            "hami_extender_bind_trouble_total",
            "Binds that met trouble: refused (devices taken since), conflict (the API server had "
            "another state), unknown (no answer to the write).",
            ("trouble",),
            registry=registry,
        )
        for trouble in ("refused", "conflict", "unknown"):
            self._binds.labels(trouble)
        self._reasons = Counter(
            "hami_extender_refused_nodes_total",
            "Nodes refused when no node fitted a pod, by reason word.",
            ("reason",),
            registry=registry,
        )

    def observe(self, verb: str, seconds: float) -> None:
        """Take the time of a verb."""
        timer = self._timers.get(verb)
        if timer is None:
            timer = self._timers[verb] = self._seconds.labels(verb)
        timer.observe(seconds)

    def bind_refused(self) -> None:
        """The devices that the choice counted on are gone."""
        self._binds.labels("refused").inc()

    def bind_conflict(self) -> None:
        """The API server had another state of the pod than we."""
        self._binds.labels("conflict").inc()

    def bind_unknown(self) -> None:
        """No answer came to a write."""
        self._binds.labels("unknown").inc()

    def refused(self, _pod: Pod, _question: Question, refusals: dict[str, Refusal]) -> None:
        """Count the reasons of all nodes; cards' counts are left out, to keep labels few."""
        for reason, nodes in Counted(r.reason for r in refusals.values()).items():
            for word in words_of(reason):
                self._reasons.labels(word).inc(nodes)
