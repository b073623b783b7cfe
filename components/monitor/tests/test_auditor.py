"""From NVML's answer to the finding, its event and its metric."""

import hashlib
import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.utils import floatToGoString

from hami_monitor.attribution import HostUse
from hami_monitor.auditor import AuditCollector, Auditor, Teller
from hami_monitor.cgroups import Owner
from hami_monitor.holdings import Holdings
from hami_monitor.host import CardReading, HostState
from hami_monitor.occupants import Occupant
from hami_monitor.processes import Process
from hami_monitor.tracker import CONFIRM_S, UNKNOWN_S
from hamikit.gpu import Card
from hamikit.names import POD_DEVICES_ALLOCATED

MIB = 1 << 20
GRANT = {POD_DEVICES_ALLOCATED: "GPU-a,NVIDIA,1000,30:;"}


class Node:
    """A node under audit: its pods, its processes, the clock, and who heard what."""

    def __init__(self, root):
        self.pods, self.table, self.now, self.heard, self.fresh = [], {}, 0.0, [], True
        self.auditor = Auditor(
            lambda: self.pods,
            self,
            Holdings(root, overhead_bytes=400 * MIB),
            listeners=(self,),
            fresh=lambda: self.fresh,
            now=lambda: self.now,
        )

    def look_up(self, pids):
        return {pid: self.table[pid] for pid in pids if pid in self.table}

    def hear(self, news, pods):
        self.heard += [(f.place.kind.value, pods.get(f.place.pod_uid)) for f in news.told]

    def run(self, pid, mib, uid="", container="main", ns_pid=40):
        """A process that holds memory on GPU-a."""
        container_id = hashlib.sha256(f"{uid}/{container}".encode()).hexdigest()
        owners = (Owner(uid, container_id),) if uid else ()
        self.table[pid] = Process(pid, ns_pid, 1, "python", owners)
        return Occupant(pid, mib * MIB, 5)

    def look(self, *occupants, after=0.0):
        """One answer of NVML; returns when the next is wanted."""
        self.now += after
        card = CardReading(Card("GPU-a", 0, "A100", 40960), occupants=occupants)
        return self.auditor.watch(HostState(up=True, cards=(card,)))

    def metrics(self, *, up=True):
        """The lines of a scrape that have samples."""
        registry = CollectorRegistry()
        registry.register(AuditCollector(self.auditor, "node-1", lambda: up))
        text = generate_latest(registry).decode()
        return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.fixture
def node(root):
    """An empty node."""
    return Node(root)


def test_a_bypass_is_told_at_the_second_look(node, granted, make_pod):
    """One process has its slot, the other went past the limiter and took too much."""
    granted("uid-a_main", ("GPU-a", 1000, 30)).process(0, buffer=16 * MIB)
    node.pods = [make_pod("uid-a", "main", annotations=GRANT)]
    good, bad = node.run(1, 316, "uid-a"), node.run(2, 5000, "uid-a", ns_pid=99)
    assert node.look(good, bad) == CONFIRM_S
    assert node.heard == []
    assert node.look(good, bad, after=CONFIRM_S) == math.inf
    assert node.heard == [("no_limiter", node.pods[0]), ("over_use", node.pods[0])]
    where = 'container="main",device_uuid="GPU-a"'
    who = 'namespace="ns",node="node-1",pod="pod-uid-a",zone="vGPU"'
    excess = floatToGoString((16 + 5000 - 464 - 1000) * MIB)
    assert node.metrics()[:3] == [
        f'hami_audit_finding_processes{{{where},kind="no_limiter",{who}}} 1.0',
        f'hami_audit_finding_processes{{{where},kind="over_use",{who}}} 2.0',
        f'hami_audit_excess_bytes{{{where},kind="over_use",{who}}} {excess}',
    ]


def test_while_nvml_is_silent_only_the_past_is_shown(node, make_pod):
    """Nobody knows whether the finding still stands."""
    node.pods = [make_pod("uid-a", "main")]
    occupant = node.run(1, 5, "uid-a")
    node.look(occupant)
    node.look(occupant, after=1.0)
    assert any("finding_processes" in line for line in node.metrics())
    silent = node.metrics(up=False)
    assert [line.split("{")[0] for line in silent] == ["hami_audit_findings_total"] * 4
    assert 'hami_audit_findings_total{kind="not_granted",node="node-1",zone="vGPU"} 1.0' in silent


def test_unknown_pods_share_a_series(node):
    """They have no names to tell them apart, and a series may stand only once."""
    occupants = [node.run(1, 5, "uid-x"), node.run(2, 7, "uid-y"), node.run(3, 7)]
    node.look(*occupants)
    node.look(*occupants, after=UNKNOWN_S)
    lines = [line for line in node.metrics() if "finding_processes" in line]
    assert len(lines) == 1
    assert lines[0].endswith(" 3.0")
    assert node.heard == [("unknown_pod", None)] * 3


def test_while_the_api_server_is_silent_strangers_are_no_finding(node, granted, make_pod):
    """They may be pods that came since; a known container is held to its grant all the same."""
    granted("uid-a_main", ("GPU-a", 1000, 30))
    node.pods, node.fresh = [make_pod("uid-a", "main", annotations=GRANT)], False
    occupants = [node.run(1, 5, "uid-x"), node.run(2, 5, "uid-a", "new"), node.run(3, 5, "uid-a")]
    node.look(*occupants)
    node.look(*occupants, after=UNKNOWN_S)
    assert node.heard == [("no_limiter", node.pods[0])]


def test_what_nvml_sees_is_known_by_container(node, make_pod):
    """For the metrics of use."""
    node.pods = [make_pod("uid-a", "main")]
    node.look(node.run(1, 5, "uid-a"), node.run(2, 7, "uid-a"))
    assert node.auditor.sight().of("uid-a", "main", "GPU-a") == HostUse(12 * MIB, 10)


class Written:
    """Takes down events."""

    def __init__(self):
        self.told = []

    def warn(self, pod, reason, message, *, again):
        assert again
        self.told.append((pod.key, reason, message))


def test_events_go_to_the_pod(node, make_pod):
    """What belongs to no pod has none; it stands in the log and in the metric."""
    events = Written()
    node.auditor._listeners = (Teller(events),)
    node.pods = [make_pod("uid-a", "main")]
    occupants = (node.run(1, 5, "uid-a"), node.run(2, 5))
    node.look(*occupants)
    node.look(*occupants, after=UNKNOWN_S)
    ((pod, reason, message),) = events.told
    assert (pod, reason) == ("ns/pod-uid-a", "GpuNotGranted")
    assert message == (
        "container main of pod ns/pod-uid-a holds 5 MiB of GPU-a but was granted no card: "
        "python (PID 1)"
    )
