"""Host PIDs on their way into the limiter's slots."""

import pytest

from hami_monitor.attribution import Attributed
from hami_monitor.holdings import Holdings
from hami_monitor.hostpids import HostPids
from hami_monitor.occupants import Occupant
from hami_monitor.processes import Process
from hamikit.names import POD_DEVICES_ALLOCATED
from hamikit.region import read_usage

GRANT = {POD_DEVICES_ALLOCATED: "GPU-a,NVIDIA,1000,30:;"}


@pytest.fixture
def tell(root, make_pod):
    """One look at processes of one container: (host PID, PID in the container, start time)."""
    pod = make_pod("uid-a", "main", annotations=GRANT)

    def look(*processes, container="main"):
        found = [
            Attributed("GPU-a", Occupant(p), Process(p, n, s, "x", ()), "uid-a", pod, container)
            for p, n, s in processes
        ]
        HostPids(root).tell(found, Holdings(root, overhead_bytes=0).of)

    return look


def host_pids(usage):
    """By slot."""
    return {process.slot: process.host_pid for process in read_usage(usage.path).processes}


def test_each_slot_gets_its_processs(granted, tell):
    """A process of another start time has had the PID before, and is not meant."""
    usage = granted("uid-a_main", ("GPU-a", 1000, 30))
    for slot in range(3):
        usage.process(slot)
    assert host_pids(usage) == {0: 0, 1: 0, 2: 0}
    tell((7000, 40, 1), (7001, 41, 1), (7002, 42, 9), (7003, 99, 1))
    assert host_pids(usage) == {0: 7000, 1: 7001, 2: 0}


def test_what_is_known_is_not_written_again(granted, tell):
    """Nothing is written each second."""
    usage = granted("uid-a_main", ("GPU-a", 1000, 30))
    usage.process(0)
    tell((7000, 40, 1))
    before = usage.path.stat().st_mtime_ns
    usage.path.chmod(0o444)
    tell((7000, 40, 1))
    assert (usage.path.stat().st_mtime_ns, host_pids(usage)) == (before, {0: 7000})


@pytest.mark.parametrize("trick", ["link", "truncated", "gone"])
def test_a_file_that_is_not_what_it_should_be_is_left_alone(granted, tell, root, trick):
    """Nobody's other file is written through a tenant's, and the audit goes on."""
    usage = granted("uid-a_main", ("GPU-a", 1000, 30))
    usage.process(0)
    other = root / "other"
    usage.path.rename(other)
    before = other.read_bytes()
    if trick == "link":
        usage.path.symlink_to(other)
    elif trick == "truncated":
        usage.path.write_bytes(before[:-1])
    tell((7000, 40, 1))
    assert other.read_bytes() == before
