"""HAMi's series with their labels, and our own."""

from extender_kit import container, device, make_node, make_pod
from prometheus_client import CollectorRegistry, generate_latest

from hami_extender.metrics import ClusterCollector, VerbMetrics
from hami_extender.placement import Refusal
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hamikit.codec import GrantedDevice
from hamikit.devices import NVIDIA
from hamikit.informer import Change

CARD = {
    "zone": "vGPU",
    "node": "n",
    "device_uuid": "GPU-a",
    "device_index": "0",
    "device_type": "NVIDIA-Test",
}
GRANT = {"zone": "vGPU", "namespace": "default", "node": "n", "pod": "p", "device_uuid": "GPU-a"}


def test_cards_and_grants():
    """Values are bytes and percent; the container's index is its own (HAMi 8.34)."""
    view, registry = Snapshot(NVIDIA), CollectorRegistry()
    registry.register(ClusterCollector(view))
    view.on_node(Change(None, make_node("n", device("GPU-a"))))
    grant = ";GPU-a,NVIDIA,2000,30:;"
    pod = make_pod(
        "p", container("x"), container("y", gpu=1), node="n", POD_DEVICES_ALLOCATED=grant
    )
    view.on_pod(Change(None, pod))
    get = registry.get_sample_value
    mib = 2**20
    assert get("hami_gpu_memory_limit_bytes", CARD) == 8000 * mib
    assert get("hami_gpu_core_limit_ratio", CARD) == 100
    assert get("hami_gpu_core_allocated_ratio", CARD) == 30
    assert get("hami_gpu_shared_count", CARD) == 1
    cores = {**CARD, "device_cores": "100"}
    assert get("hami_gpu_memory_allocated_bytes", cores) == 2000 * mib
    overview = {**cores, "device_memory_limit": "8000"}
    assert get("hami_node_gpu_overview", overview) == 2000 * mib
    assert get("hami_node_gpu_memory_allocated_ratio", CARD) == 0.25
    assert get("hami_vgpu_memory_allocated_bytes", {**GRANT, "container_index": "1"}) == 2000 * mib
    assert get("hami_vgpu_core_allocated_ratio", {**GRANT, "container_index": "1"}) == 30
    assert get("hami_extender_holdings", {"kind": "grant"}) == 1


def test_a_name_in_use_again_is_one_series():
    """Two series with the same labels would fail the whole scrape."""
    view = Snapshot(NVIDIA)
    for uid in ("old", "new"):
        slots = ((GrantedDevice("GPU-a", "NVIDIA", 1, 5),),)
        view.hold(Kind.GRANT, make_pod("p", uid=uid), "n", slots)
    registry = CollectorRegistry()
    registry.register(ClusterCollector(view))
    text = generate_latest(registry).decode()
    assert text.count("hami_vgpu_core_allocated_ratio{") == 1
    labels = {**GRANT, "container_index": "0"}
    assert registry.get_sample_value("hami_vgpu_core_allocated_ratio", labels) == 10
    assert registry.get_sample_value("hami_extender_missing_cards", {"node": "n"}) == 1


def test_claims_are_no_grants():
    """They hold room on the card, but nobody was granted anything."""
    view, registry = Snapshot(NVIDIA), CollectorRegistry()
    registry.register(ClusterCollector(view))
    view.claim(make_pod("p"), "n", ((GrantedDevice("GPU-a", "NVIDIA", 1, 5),),), 60)
    assert "hami_vgpu_core_allocated_ratio{" not in generate_latest(registry).decode()


def test_our_own_series():
    """Timings by verb, trouble by kind, refused nodes by reason word."""
    registry = CollectorRegistry()
    metrics = VerbMetrics(registry, "0.1.0")
    metrics.observe("filter", 0.01)
    metrics.bind_refused()
    metrics.bind_conflict()
    metrics.bind_unknown()
    mixed, unknown = Refusal("1/2 CardNotHealth, 1/2 CardCordoned"), Refusal("node unregistered")
    metrics.refused(None, None, {"n": mixed, "m": mixed, "o": unknown})
    get = registry.get_sample_value
    assert get("hami_extender_verb_duration_seconds_count", {"verb": "filter"}) == 1
    for trouble in ("refused", "conflict", "unknown"):
        assert get("hami_extender_bind_trouble_total", {"trouble": trouble}) == 1
    assert get("hami_extender_refused_nodes_total", {"reason": "CardCordoned"}) == 2
    assert get("hami_extender_refused_nodes_total", {"reason": "node unregistered"}) == 1
    assert 'hami_build_info{build_date=""' in generate_latest(registry).decode()
