"""The names that HAMi's monitor had before 2.10, for those who ask for them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

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


@dataclass(frozen=True, slots=True)
class _Former:
    """A former name, the present one, and the former labels with the present ones."""

    name: str
    present: str
    labels: dict[str, str]


_FORMER: Final = (
    _Former("HostGPUMemoryUsage", "hami_host_gpu_memory_used_bytes", _CARD),
    _Former("HostCoreUtilization", "hami_host_gpu_utilization_ratio", _CARD),
    _Former("vGPU_device_memory_usage_in_bytes", "hami_vgpu_memory_used_bytes", _DEVICE),
    _Former("vGPU_device_memory_limit_in_bytes", "hami_vgpu_memory_limit_bytes", _DEVICE),
    _Former(
        "Device_utilization_desc_of_container", "hami_container_device_utilization_ratio", _DEVICE
    ),
    _Former(
        "Device_last_kernel_of_container", "hami_container_last_kernel_elapsed_seconds", _DEVICE
    ),
    _Former("MigInfo", "hami_mig_device_info", {**_DEVICE, "instanceid": "gpu_instance_id"}),
)
_PARTS: Final = {
    "context": "hami_vgpu_memory_context_bytes",
    "module": "hami_vgpu_memory_module_bytes",
    "data": "hami_vgpu_memory_buffer_bytes",
}
_TOTAL: Final = "hami_vgpu_memory_used_bytes"


class WithLegacy(Collector):
    """Another collector's metrics, and then the same under their former names."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        """Present names first."""
        present = list(self._collector.collect())
        yield from present
        yield from former(present)


def former(present: Iterable[Metric]) -> Iterator[Metric]:
    """The metrics under their former names, as far as there are any."""
    by_name = {metric.name: metric for metric in present}
    for row in _FORMER:
        metric = by_name.get(row.present)
        if metric is not None:
            family = GaugeMetricFamily(row.name, metric.documentation, labels=list(row.labels))
            for sample in metric.samples:
                family.add_metric(
                    [sample.labels[label] for label in row.labels.values()], sample.value
                )
            yield family
    if _TOTAL in by_name:
        yield _memory(by_name)


def _memory(by_name: dict[str, Metric]) -> Metric:
    """The parts of a container's memory stood in labels; what is not known was 0 there."""
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
    return family


def _place(labels: dict[str, str]) -> tuple[str, ...]:
    return tuple(labels[present] for present in _DEVICE.values())
