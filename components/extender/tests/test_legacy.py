"""HAMi's names before 2.10."""

import msgspec
from extender_kit import device, make_node, make_pod
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hami_extender.legacy import FORMER
from hami_extender.metrics import ClusterCollector
from hami_extender.snapshot import Snapshot
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.legacy import WithLegacy
from hamikit.quotas import ResourceQuota

MIB = 2**20
CARD = {
    "zone": "vGPU",
    "nodeid": "n",
    "deviceuuid": "GPU-a",
    "deviceidx": "0",
    "devicetype": "NVIDIA-Test",
}
CORES = {**CARD, "devicecores": "100"}
GRANT = {
    "zone": "vGPU",
    "podnamespace": "default",
    "nodename": "n",
    "podname": "p",
    "containeridx": "0",
    "deviceuuid": "GPU-a",
}
QUOTA = {
    "metadata": {"name": "q", "namespace": "default", "uid": "q"},
    "spec": {"hard": {"limits.nvidia.com/gpumem": "5000"}},
}


def test_every_former_name_has_its_labels_and_its_value():
    """Beside the present names."""
    view, registry = Snapshot(NVIDIA), CollectorRegistry()
    registry.register(WithLegacy(ClusterCollector(view), FORMER))
    view.on_node(Change(None, make_node("n", device("GPU-a"))))
    view.on_quota(Change(None, msgspec.convert(QUOTA, ResourceQuota)))
    grant = "GPU-a,NVIDIA,2000,30:;"
    view.on_pod(Change(None, make_pod("p", node="n", POD_DEVICES_ALLOCATED=grant)))
    text = generate_latest(registry).decode()
    assert "hami_gpu_memory_limit_bytes{" in text
    former = {
        sample.name: (sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.startswith("hami_")
        and sample.labels.get("quotaName") != "nvidia.com/gpucores"
    }
    quota = {"zone": "vGPU", "quotanamespace": "default", "quotaName": "nvidia.com/gpumem"}
    assert former == {
        "GPUDeviceMemoryLimit": (CARD, 8000 * MIB),
        "GPUDeviceCoreLimit": (CARD, 100),
        "GPUDeviceSharedNum": (CARD, 1),
        "GPUDeviceCoreAllocated": (CARD, 30),
        "GPUDeviceMemoryAllocated": (CORES, 2000 * MIB),
        "nodeGPUOverview": ({**CORES, "devicememorylimit": "8000"}, 2000 * MIB),
        "nodeGPUMemoryPercentage": ({k: v for k, v in CARD.items() if k != "devicetype"}, 0.25),
        "QuotaUsed": ({**quota, "limit": "5000"}, 2000),
        "vGPUMemoryAllocated": (GRANT, 2000 * MIB),
        "vGPUCoreAllocated": (GRANT, 30),
    }
