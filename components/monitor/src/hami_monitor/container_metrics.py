"""The metrics of containers: what each was granted, says it uses, and is seen to use."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from hami_monitor.accounts import Account, DeviceAccount
from hami_monitor.attribution import HostUse, Sight
from hami_monitor.collectors import ratio
from hami_monitor.containers import Reading, Unreadable, read_containers
from hami_monitor.gauges import Families
from hamikit import names
from hamikit.codec import CodecError
from hamikit.mig import decode_mig_allocations
from hamikit.objects import Pod

_CONTAINER: Final = ("namespace", "pod", "container")
_DEVICE: Final = (*_CONTAINER, "vdevice_index", "device_uuid")
_MIG: Final = (*_DEVICE, "mig_uuid", "profile", "gpu_instance_id", "compute_instance_id")
_DEVICE_METRICS: Final = (
    ("hami_vgpu_memory_used_bytes", "Memory that counts against the container's limit."),
    ("hami_vgpu_memory_limit_bytes", "The container's limit on the card."),
    ("hami_container_device_memory_bytes", "The same as hami_vgpu_memory_used_bytes."),
    (
        "hami_container_device_utilization_ratio",
        "Compute that the container uses, in percent of the card, as NVML says.",
    ),
    ("hami_vgpu_memory_context_bytes", "Memory of the container's CUDA contexts."),
    ("hami_vgpu_memory_module_bytes", "Memory of the container's loaded modules."),
    ("hami_vgpu_memory_buffer_bytes", "Memory that the container's programs allocated."),
    (
        "hami_container_last_kernel_elapsed_seconds",
        "Time since the container last launched or allocated something.",
    ),
    ("hami_vgpu_core_limit_ratio", "The container's share of the card's compute, 0 to 1."),
    ("hami_container_device_busy_ratio", "Compute that the container uses, 0 to 1."),
    ("hami_container_device_host_memory_bytes", "What NVML says its processes hold on the card."),
    (
        "hami_vgpu_memory_peak_bytes",
        "Highest use that the limiter has counted, without contexts and modules.",
    ),
    ("hami_vgpu_refused_allocations_total", "Allocations that would have passed the limit."),
    ("hami_vgpu_compute_seconds_total", "Compute time that the limiter has charged."),
    ("hami_vgpu_launches_total", "Launches that the limiter has counted."),
)


class ContainerCollector(Collector):
    """What each container was granted, says it uses, and is seen to use.

    Limits come from the host's own files and the pod's annotation, utilisation from NVML; all
    else is the tenant's own account.
    """

    def __init__(
        self,
        root: Path,
        pods: Callable[[], Iterable[Pod]],
        sight: Callable[[], Sight],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._root, self._pods, self._sight, self._wall = root, pods, sight, wall
        self._unreadable = Unreadable()

    def collect(self) -> Iterator[Metric]:
        """Everything that can be read now."""
        devices = Families(_DEVICE, *_DEVICE_METRICS)
        unlimited = "hami_container_limiter_unlimited"
        text = "1 when a process of the container has used a device without a limit."
        containers = Families(_CONTAINER, (unlimited, text))
        pods, sight = list(self._pods()), self._sight()
        for reading in read_containers(self._root, pods, self._unreadable):
            account = reading.account
            if account is not None:
                self._add_devices(devices, reading, account, sight)
                containers.add(unlimited, _who(reading.pod, reading.container), account.unlimited)
        yield from devices
        yield from containers
        yield from mig_devices(pods)
        yield from self._unreadable_family()

    def _add_devices(
        self, devices: Families, reading: Reading, account: Account, sight: Sight
    ) -> None:
        last_s = account.last_activity_s
        idle = None if last_s is None else max(self._wall() - last_s, 0.0)
        for device in account.devices:
            who = (*_who(reading.pod, reading.container), str(device.index), device.uuid)
            use = sight.of(reading.pod.metadata.uid, reading.container, device.uuid)
            for name, value in _values(device, use).items():
                devices.add(name, who, value)
            if device.used_bytes is not None:
                devices.add("hami_container_last_kernel_elapsed_seconds", who, idle)

    def _unreadable_family(self) -> Families:
        name = "hami_monitor_unreadable_files_total"
        text = "Control and usage files that could not be read, by reason."
        families = Families(("file", "reason"), (name, text))
        for labels, count in sorted(self._unreadable.counts().items()):
            families.add(name, labels, count)
        return families


def _who(pod: Pod, container: str) -> tuple[str, str, str]:
    return (pod.metadata.namespace, pod.metadata.name, container)


def _values(device: DeviceAccount, use: HostUse | None) -> dict[str, float | None]:
    """Values by metric; None is left out."""
    busy = None if use is None else use.utilization
    counters = device.counters
    return {
        "hami_vgpu_memory_used_bytes": device.used_bytes,
        "hami_vgpu_memory_limit_bytes": device.limit_bytes,
        "hami_container_device_memory_bytes": device.used_bytes,
        "hami_container_device_utilization_ratio": busy,
        "hami_vgpu_memory_context_bytes": device.context_bytes,
        "hami_vgpu_memory_module_bytes": device.module_bytes,
        "hami_vgpu_memory_buffer_bytes": device.buffer_bytes,
        "hami_vgpu_core_limit_ratio": ratio(device.core_percent),
        "hami_container_device_busy_ratio": ratio(busy),
        "hami_container_device_host_memory_bytes": None if use is None else use.memory_bytes,
        "hami_vgpu_memory_peak_bytes": counters.peak_bytes if counters else None,
        "hami_vgpu_refused_allocations_total": counters.refused if counters else None,
        # Zero while the compute limiter does not run: it may be that nobody counts.
        "hami_vgpu_compute_seconds_total": counters.charged_ns / 1e9 or None if counters else None,
        "hami_vgpu_launches_total": counters.launches or None if counters else None,
    }


def mig_devices(pods: Iterable[Pod]) -> Families:
    """`hami_mig_device_info`: the MIG instances that pods hold, by their annotation."""
    name = "hami_mig_device_info"
    families = Families(_MIG, (name, "A MIG instance that a container holds."))
    for pod in pods:
        try:
            found = decode_mig_allocations(
                pod.metadata.annotations.get(names.POD_MIG_ALLOCATIONS, "")
            )
        except CodecError:
            continue  # who may write this annotation reports it; here there is nothing to show
        containers = pod.all_containers
        for one in found:
            if one.mig_uuid is not None and one.container_index < len(containers):
                place = (str(one.device_index), one.gpu_uuid, one.mig_uuid, one.profile)
                ids = (str(one.gpu_instance_id), str(one.compute_instance_id))
                who = _who(pod, containers[one.container_index].name)
                families.add(name, (*who, *place, *ids), 1)
    return families
