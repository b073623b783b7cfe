"""HAMi's names before 2.10."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hami_monitor.attribution import HostUse, Sight
from hami_monitor.collectors import HostCollector
from hami_monitor.container_metrics import ContainerCollector
from hami_monitor.host import CardReading, HostState
from hami_monitor.legacy import with_legacy
from hamikit.gpu import Card

MIB = 1 << 20
NOW = 1_700_000_000.0
MIG = (
    '[{"containerIndex":0,"deviceIndex":0,"gpuUUID":"GPU-a","profile":"1g.5gb","placement":'
    '{"start":0,"size":1},"migUUID":"MIG-1","gpuInstanceID":7,"computeInstanceID":0}]'
)


class StillHost:
    """A card whose state is given."""

    def state(self):
        card = CardReading(Card("GPU-a", 0, "A100", 40960), 348 * MIB, 70, 20)
        return HostState(up=True, cards=(card,))


def test_every_former_name_has_its_labels_and_its_value(root, granted, make_pod):
    """Beside the present names; the parts of the memory stand in labels."""
    usage = granted("uid-a_main", ("GPU-a", 3000, 30))
    usage.used(0, 48 * MIB)
    usage.process(0, last_s=NOW - 12, buffer=40 * MIB, context=4 * MIB, module=2 * MIB)
    pods = [make_pod("uid-a", "main", annotations={"hami.io/vgpu-mig-allocations": MIG})]
    seen = Sight({("uid-a", "main", "GPU-a"): HostUse(0, 33)}, frozenset({"GPU-a"}))
    registry = CollectorRegistry()
    registry.register(with_legacy(HostCollector(StillHost(), "node-1")))
    containers = ContainerCollector(root, lambda: pods, lambda: seen, wall=lambda: NOW)
    registry.register(with_legacy(containers))
    text = generate_latest(registry).decode()
    assert "hami_vgpu_memory_used_bytes{" in text
    card = {
        "nodeid": "node-1",
        "deviceidx": "0",
        "deviceuuid": "GPU-a",
        "devicetype": "NVIDIA-A100",
        "zone": "vGPU",
    }
    place = {
        "podnamespace": "ns",
        "podname": "pod-uid-a",
        "ctrname": "main",
        "vdeviceid": "0",
        "deviceuuid": "GPU-a",
        "zone": "vGPU",
    }
    sizes = {"context": 4 * MIB, "module": 2 * MIB, "data": 40 * MIB, "offset": 2 * MIB}
    parts = {name: str(size) for name, size in sizes.items()}
    former = [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.startswith("hami_")
    ]
    assert former == [
        ("HostGPUMemoryUsage", card, 348 * MIB),
        ("HostCoreUtilization", card, 70),
        ("vGPU_device_memory_usage_in_bytes", place, 48 * MIB),
        ("vGPU_device_memory_limit_in_bytes", place, 3000 * MIB),
        ("Device_utilization_desc_of_container", place, 33),
        ("Device_last_kernel_of_container", place, 12),
        ("MigInfo", {**place, "instanceid": "7"}, 1),
        ("Device_memory_desc_of_container", {**place, **parts}, 48 * MIB),
    ]
