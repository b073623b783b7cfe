"""The names that HAMi's monitor had before 2.10, for those who ask for them."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hamikit.legacy import Former, WithLegacy

_CARD: Final = {
    "nodeid": "node",
    "deviceidx": "device_index",
    "deviceuuid": "device_uuid",
    "devicetype": "device_type",
    "zone": "zone",
}
_DEVICE: Final = {
    "podnamespace": "namespace",
    "podname": "pod",
    "ctrname": "container",
    "vdeviceid": "vdevice_index",
    "deviceuuid": "device_uuid",
    "zone": "zone",
}


_FORMER: Final = (
    Former("HostGPUMemoryUsage", "hami_host_gpu_memory_used_bytes", _CARD),
    Former("HostCoreUtilization", "hami_host_gpu_utilization_ratio", _CARD),
    Former("vGPU_device_memory_usage_in_bytes", "hami_vgpu_memory_used_bytes", _DEVICE),
    Former("vGPU_device_memory_limit_in_bytes", "hami_vgpu_memory_limit_bytes", _DEVICE),
    Former(
        "Device_utilization_desc_of_container", "hami_container_device_utilization_ratio", _DEVICE
    ),
    Former(
        "Device_last_kernel_of_container", "hami_container_last_kernel_elapsed_seconds", _DEVICE
    ),
    Former("MigInfo", "hami_mig_device_info", {**_DEVICE, "instanceid": "gpu_instance_id"}),
)
_PARTS: Final = {
    "context": "hami_vgpu_memory_context_bytes",
    "module": "hami_vgpu_memory_module_bytes",
    "data": "hami_vgpu_memory_buffer_bytes",
}
_TOTAL: Final = "hami_vgpu_memory_used_bytes"


def with_legacy(collector: Collector) -> Collector:
    """A collector of ours, its metrics under their former names too."""
    return WithLegacy(collector, _FORMER, _memory)


def _memory(by_name: Mapping[str, Metric]) -> Iterator[Metric]:
    """The parts of a container's memory stood in labels; what is not known was 0 there."""
    if _TOTAL not in by_name:
        return
    labels = [*_DEVICE, *_PARTS, "offset"]
    text = "Memory that counts against the container's limit, with its parts as labels."
    family = GaugeMetricFamily("Device_memory_desc_of_container", text, labels=labels)
    parts = {
        part: {_place(s.labels): int(s.value) for s in by_name[name].samples}
        for part, name in _PARTS.items()
        if name in by_name
    }
    for sample in by_name[_TOTAL].samples:
        place = _place(sample.labels)
        sizes = [parts.get(part, {}).get(place, 0) for part in _PARTS]
        offset = max(int(sample.value) - sum(sizes), 0)
        family.add_metric([*place, *map(str, sizes), str(offset)], sample.value)
    yield family


def _place(labels: dict[str, str]) -> tuple[str, ...]:
    return tuple(labels[present] for present in _DEVICE.values())
