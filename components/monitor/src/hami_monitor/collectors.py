"""The metrics, each made anew at a scrape; what is not known is absent, never zero."""

import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hami_monitor.containers import Reading, Unreadable, read_containers
from hami_monitor.host import CardReading, Host
from hamikit.objects import Pod
from hamikit.region import Kind, Usage

ZONE: Final = "vGPU"
_CARD: Final = ("node", "device_index", "device_uuid", "device_type")
_CONTAINER: Final = ("namespace", "pod", "container")
_DEVICE: Final = (*_CONTAINER, "vdevice_index", "device_uuid")
_OVERHEAD: Final = {
    "hami_vgpu_memory_context_bytes": Kind.CONTEXT,
    "hami_vgpu_memory_module_bytes": Kind.MODULE,
}
_BUFFERS: Final = tuple(kind for kind in Kind if kind not in _OVERHEAD.values())


class _Gauges:
    """Families of one collector, in order of declaration, all with our constant label."""

    def __init__(self, labels: Iterable[str]) -> None:
        self._labels = (*labels, "zone")
        self._families: dict[str, GaugeMetricFamily] = {}

    def declare(self, *rows: tuple[str, str]) -> None:
        for name, text in rows:
            self._families[name] = GaugeMetricFamily(name, text, labels=self._labels)

    def add(self, name: str, labels: Iterable[str], value: float | None) -> None:
        """Add a sample; None adds nothing."""
        if value is not None:
            self._families[name].add_metric((*labels, ZONE), value)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())


class BuildInfo(Collector):
    """`hami_build_info`, with the labels that HAMi's dashboards know."""

    def collect(self) -> Iterator[Metric]:
        """One sample."""
        family = GaugeMetricFamily(
            "hami_build_info",
            "Which program this is.",
            labels=("version", "revision", "build_date", "go_version", "compiler", "platform"),
        )
        compiler = f"{platform.python_implementation()} {platform.python_version()}"
        system = f"{sys.platform}/{platform.machine()}"
        # No Go here, and images are named by version: these three stay empty.
        family.add_metric((version("hami-monitor"), "", "", "", compiler, system), 1)
        yield family


class HostCollector(Collector):
    """The node's cards; ratios are percent (0 to 100) as in HAMi, whatever their name says."""

    def __init__(self, host: Host, node: str) -> None:
        self._host, self._node = host, node

    def collect(self) -> Iterator[Metric]:
        """The cards as last heard of, and how NVML is doing."""
        state = self._host.state()
        gauges = _Gauges(_CARD)
        gauges.declare(
            ("hami_host_gpu_memory_used_bytes", "Memory in use on the card, by all processes."),
            ("hami_host_gpu_utilization_ratio", "Busy time of the card in percent."),
            (
                "hami_host_gpu_memory_controller_utilization_ratio",
                "Busy time of the card's memory in percent.",
            ),
        )
        for reading in state.cards:
            self._add(gauges, reading)
        yield from gauges
        up = GaugeMetricFamily(
            "hami_monitor_nvml_up", "Whether NVML answers in time.", labels=("node", "zone")
        )
        up.add_metric((self._node, ZONE), state.up)
        yield up
        errors = GaugeMetricFamily(
            "hami_monitor_nvml_last_error_timestamp_seconds",
            "When NVML last failed, by what it said.",
            labels=("node", "error", "zone"),
        )
        for error, when in sorted(state.errors.items()):
            errors.add_metric((self._node, error, ZONE), when)
        yield errors

    def _add(self, gauges: _Gauges, reading: CardReading) -> None:
        card = reading.card
        labels = (self._node, str(card.index), card.uuid, device_type(card.name))
        gauges.add("hami_host_gpu_memory_used_bytes", labels, reading.used_bytes)
        gauges.add("hami_host_gpu_utilization_ratio", labels, reading.utilization)
        gauges.add(
            "hami_host_gpu_memory_controller_utilization_ratio", labels, reading.memory_utilization
        )


def device_type(name: str) -> str:
    """A card's type as its node registers it: prefixed once."""
    return name if name.startswith("NVIDIA") else f"NVIDIA-{name}"


class ContainerCollector(Collector):
    """What each container was granted and what it says it uses.

    Limits come from the control file, which only the host writes; all else is the tenant's own
    account.
    """

    def __init__(
        self,
        root: Path,
        pods: Callable[[], Iterable[Pod]],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._root, self._pods, self._wall = root, pods, wall
        self._unreadable = Unreadable()

    def collect(self) -> Iterator[Metric]:
        """Everything that can be read now."""
        devices, containers = _Gauges(_DEVICE), _Gauges(_CONTAINER)
        devices.declare(*_DEVICE_METRICS)
        containers.declare(
            (
                "hami_container_limiter_unlimited",
                "1 when a process of the container has used a device without a limit.",
            )
        )
        for reading in read_containers(self._root, self._pods(), self._unreadable):
            self._add_devices(devices, reading)
            if reading.usage is not None:
                who = (reading.namespace, reading.pod, reading.container)
                unlimited = reading.usage.unlimited_starts > 0
                containers.add("hami_container_limiter_unlimited", who, unlimited)
        yield from devices
        yield from containers
        yield self._unreadable_family()

    def _add_devices(self, gauges: _Gauges, reading: Reading) -> None:
        if reading.control is None:
            return  # nothing says which cards the numbers are about
        idle = None if reading.usage is None else _idle_s(reading.usage, self._wall())
        for index, device in enumerate(reading.control.devices):
            who = (reading.namespace, reading.pod, reading.container, str(index), device.uuid)
            # 0 says that there is no limit: a limit of 0 bytes would be wrong.
            gauges.add("hami_vgpu_memory_limit_bytes", who, device.memory_limit_bytes or None)
            if reading.usage is None:
                continue
            used = reading.usage.devices[index].used_bytes
            gauges.add("hami_vgpu_memory_used_bytes", who, used)
            gauges.add("hami_container_device_memory_bytes", who, used)
            gauges.add("hami_vgpu_memory_buffer_bytes", who, _share(reading.usage, index, _BUFFERS))
            for name, kind in _OVERHEAD.items():
                # The limiter does not record these everywhere: 0 may mean that nobody looked.
                gauges.add(name, who, _share(reading.usage, index, (kind,)) or None)
            gauges.add("hami_container_last_kernel_elapsed_seconds", who, idle)

    def _unreadable_family(self) -> Metric:
        family = CounterMetricFamily(
            "hami_monitor_unreadable_files",
            "Control and usage files that could not be read, by reason.",
            labels=("file", "reason", "zone"),
        )
        for (file, reason), count in sorted(self._unreadable.counts().items()):
            family.add_metric((file, reason, ZONE), count)
        return family


_DEVICE_METRICS: Final = (
    ("hami_vgpu_memory_used_bytes", "Memory that counts against the container's limit."),
    ("hami_vgpu_memory_limit_bytes", "The container's limit on the card."),
    ("hami_container_device_memory_bytes", "The same as hami_vgpu_memory_used_bytes."),
    (
        "hami_container_device_utilization_ratio",
        "Compute that the container uses, in percent of the card.",
    ),
    ("hami_vgpu_memory_context_bytes", "Memory of the container's CUDA contexts."),
    ("hami_vgpu_memory_module_bytes", "Memory of the container's loaded modules."),
    ("hami_vgpu_memory_buffer_bytes", "Memory that the container's programs allocated."),
    (
        "hami_container_last_kernel_elapsed_seconds",
        "Time since the container last launched or allocated something.",
    ),
)


def _share(usage: Usage, device: int, kinds: Iterable[Kind]) -> int:
    return sum(
        process.shares.get((device, kind), 0) for process in usage.processes for kind in kinds
    )


def _idle_s(usage: Usage, wall: float) -> float | None:
    """Seconds since the last activity; None when none was seen."""
    last_ns = max((process.last_activity_ns for process in usage.processes), default=0)
    return max(wall - last_ns / 1e9, 0.0) if last_ns else None


def register(registry: CollectorRegistry, *collectors: Collector) -> CollectorRegistry:
    """Put the collectors into the registry, in the order in which they shall appear."""
    for collector in collectors:
        registry.register(collector)
    return registry
