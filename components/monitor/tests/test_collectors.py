"""The exposition text, as Prometheus gets it."""

import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hami_monitor.attribution import NO_SIGHT, HostUse, Sight
from hami_monitor.collectors import BuildInfo, HostCollector, device_type, register
from hami_monitor.container_metrics import ContainerCollector
from hami_monitor.host import CardReading, HostState
from hamikit.gpu import Card

MIB = 1024 * 1024
NOW = 1_700_000_000.0
GOLDEN = Path(__file__).parent / "golden.prom"


SEEN = Sight(
    {
        ("uid-a", "main", "GPU-a"): HostUse(648 * MIB, 33),
        ("uid-a", "side", "GPU-b"): HostUse(5, None),
    },
    frozenset({"GPU-a", "GPU-b"}),
)


def nothing_seen():
    """What NVML says when it says nothing."""
    return NO_SIGHT


class StillHost:
    """A host whose state is given."""

    def __init__(self, state):
        self.state = lambda: state


def exposition(*collectors):
    """The text of a scrape."""
    return generate_latest(register(CollectorRegistry(), *collectors)).decode()


def samples(text, name):
    """(labels without zone, value) of every series of a metric."""
    return [
        ({k: v for k, v in s.labels.items() if k != "zone"}, s.value)
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.name == name
    ]


@pytest.fixture
def busy_node(root, granted, make_pod):
    """A pod with a two-card container and one that only has been granted something."""
    busy = granted("uid-a_main", ("GPU-a", 3000, 30), ("GPU-b", 500, 0))
    busy.used(0, 48 * MIB)
    busy.used(1, 0)
    busy.process(0, last_s=NOW - 12.5, buffer=16 * MIB, pool=8 * MIB, context=300 * MIB, module=MIB)
    busy.process(3, last_s=NOW - 90, managed=24 * MIB, context=300 * MIB)
    quiet = granted("uid-a_side", ("GPU-b", 0, 0))
    quiet.unlimited(2)
    (root / "uid-a_broken").mkdir()
    (root / "uid-a_broken" / "control").write_bytes(b"")
    os.mkfifo(root / "uid-a_broken" / "usage")
    return root, [make_pod("uid-a", "main", "side", "broken")]


def test_the_whole_text(busy_node):
    """Names, labels, units and order; a broken container among them changes nothing else."""
    root, pods = busy_node
    cards = (
        CardReading(Card("GPU-a", 0, "NVIDIA A100-SXM4-40GB", 40960), 348 * MIB, 70, 20),
        CardReading(Card("GPU-b", 1, "Tesla T4", 15360), 100 * MIB),
    )
    state = HostState(up=True, cards=cards, errors={"GPU is lost": NOW - 60})
    text = exposition(
        HostCollector(StillHost(state), "node-1"),
        ContainerCollector(root, lambda: pods, lambda: SEEN, wall=lambda: NOW),
    )
    assert text.splitlines() == GOLDEN.read_text(encoding="utf-8").splitlines()


def test_without_nvml_the_cards_are_absent():
    """No zeros: only that NVML is silent."""
    text = exposition(HostCollector(StillHost(HostState()), "node-1"))
    assert samples(text, "hami_host_gpu_memory_used_bytes") == []
    assert samples(text, "hami_monitor_nvml_up") == [({"node": "node-1"}, 0.0)]


def test_a_killed_process_holds_nothing(granted, root, make_pod):
    """Its slot stays charged until a neighbour clears it up, but its lock is gone."""
    usage = granted("uid-a_main", ("GPU-a", 100, 0))
    usage.used(0, 16 * MIB)
    usage.process(0, buffer=16 * MIB)
    collector = ContainerCollector(root, lambda: [make_pod("uid-a", "main")], nothing_seen)
    assert samples(exposition(collector), "hami_vgpu_memory_used_bytes")[0][1] == 16 * MIB
    usage.close()
    assert samples(exposition(collector), "hami_vgpu_memory_used_bytes")[0][1] == 0


def test_activity_in_the_future_is_now(granted, root, make_pod):
    """A clock that was set back, or a tenant's nonsense, gives no negative time."""
    granted("uid-a_main", ("GPU-a", 1, 0)).process(0, last_s=NOW + 1e6)
    collector = ContainerCollector(
        root, lambda: [make_pod("uid-a", "main")], nothing_seen, wall=lambda: NOW
    )
    (series,) = samples(exposition(collector), "hami_container_last_kernel_elapsed_seconds")
    assert series[1] == 0.0


def test_without_a_usage_file_the_limit_remains(granted, root, make_pod):
    """What was granted is known from the host's own file."""
    granted("uid-a_main", ("GPU-a", 3000, 0), ("GPU-b", 500, 0))
    (root / "uid-a_main" / "usage").unlink()
    text = exposition(ContainerCollector(root, lambda: [make_pod("uid-a", "main")], nothing_seen))
    who = {"namespace": "ns", "pod": "pod-uid-a", "container": "main"}
    first = {"vdevice_index": "0", "device_uuid": "GPU-a"}
    second = {"vdevice_index": "1", "device_uuid": "GPU-b"}
    assert samples(text, "hami_vgpu_memory_limit_bytes") == [
        ({**who, **first}, 3000 * MIB),
        ({**who, **second}, 500 * MIB),
    ]
    assert samples(text, "hami_vgpu_memory_used_bytes") == []
    assert samples(text, "hami_container_limiter_unlimited") == []


@pytest.mark.parametrize(("starts", "shown"), [(0, 0.0), (1, 1.0), (7, 1.0)])
def test_a_single_start_without_a_limit_shows(granted, root, make_pod, starts, shown):
    """One process is enough to take a whole card; the series says whether, not how often."""
    granted("uid-a_main", ("GPU-a", 1, 0)).unlimited(starts)
    text = exposition(ContainerCollector(root, lambda: [make_pod("uid-a", "main")], nothing_seen))
    assert [value for _, value in samples(text, "hami_container_limiter_unlimited")] == [shown]


def test_build_info_has_hamis_labels():
    """Dashboards select by them; what we do not have is empty."""
    ((labels, value),) = samples(exposition(BuildInfo()), "hami_build_info")
    expected = {"version", "revision", "build_date", "go_version", "compiler", "platform"}
    assert (labels.keys(), value) == (expected, 1.0)
    assert labels["version"] == "0.1.0"


def test_a_type_is_prefixed_once():
    """As in the node's register annotation."""
    assert device_type("NVIDIA A100") == "NVIDIA A100"
    assert device_type("Tesla T4") == "NVIDIA-Tesla T4"
