"""The names that HAMi's scheduler gave its metrics before 2.10."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from hami_extender.metrics import MIG_INSTANCE
from hamikit.legacy import Former

_PLACE: Final = {
    "zone": "zone",
    "nodeid": "node",
    "deviceuuid": "device_uuid",
    "deviceidx": "device_index",
}
_CARD: Final = {**_PLACE, "devicetype": "device_type"}
_CORES: Final = {**_CARD, "devicecores": "device_cores"}
_GRANT: Final = {
    "zone": "zone",
    "podnamespace": "namespace",
    "nodename": "node",
    "podname": "pod",
    "containeridx": "container_index",
    "deviceuuid": "device_uuid",
}
_QUOTA: Final = {
    "zone": "zone",
    "quotanamespace": "namespace",
    "quotaName": "quota_name",
    "limit": "limit",
}

FORMER: Final = (
    Former("GPUDeviceMemoryLimit", "hami_gpu_memory_limit_bytes", _CARD),
    Former("GPUDeviceCoreLimit", "hami_gpu_core_limit_ratio", _CARD),
    Former("GPUDeviceSharedNum", "hami_gpu_shared_count", _CARD),
    Former("GPUDeviceCoreAllocated", "hami_gpu_core_allocated_ratio", _CARD),
    Former("GPUDeviceMemoryAllocated", "hami_gpu_memory_allocated_bytes", _CORES),
    Former(
        "nodeGPUOverview",
        "hami_node_gpu_overview",
        {**_CORES, "devicememorylimit": "device_memory_limit"},
    ),
    Former("nodeGPUMemoryPercentage", "hami_node_gpu_memory_allocated_ratio", _PLACE),
    Former("QuotaUsed", "hami_resource_quota_used", _QUOTA),
    Former("vGPUMemoryAllocated", "hami_vgpu_memory_allocated_bytes", _GRANT),
    Former("vGPUCoreAllocated", "hami_vgpu_core_allocated_ratio", _GRANT),
)


def instances(present: Mapping[str, Metric]) -> Iterator[Metric]:
    """`nodeGPUMigInstance`, whose last label is made of two."""
    now = present[MIG_INSTANCE]
    family = GaugeMetricFamily(
        "nodeGPUMigInstance",
        now.documentation,
        labels=("zone", "nodeid", "deviceuuid", "deviceidx", "migname"),
    )
    for sample in now.samples:
        said = sample.labels
        place = [said[name] for name in ("zone", "node", "device_uuid", "device_index")]
        family.add_metric([*place, f"{said['profile']}-{said['gpu_instance_id']}"], sample.value)
    yield family
