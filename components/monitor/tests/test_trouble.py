"""The monitor killed at any moment, and tenants that spoil their files while it looks."""

import itertools
import os
import random
import shutil
import signal
import threading
from contextlib import suppress
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from hami_monitor.auditor import Auditor
from hami_monitor.cgroups import Owner
from hami_monitor.collectors import register
from hami_monitor.container_metrics import ContainerCollector
from hami_monitor.feedback import IDLE_NS, MS
from hami_monitor.governor import LEASE_NS, FeedbackCollector, Governor
from hami_monitor.holdings import Holdings
from hami_monitor.host import CardReading, HostState
from hami_monitor.hostpids import HostPids
from hami_monitor.occupants import Occupant
from hami_monitor.processes import Process
from hamikit.exposition import render
from hamikit.gpu import Card
from hamikit.region import Control, ControlDevice, read_control, read_usage, write_control

from .conftest import MIB, container_id

NOW = 1_700_000_000 * 1000 * MS
KILLS, LOOKS = 60, 150
GRANT = (ControlDevice("GPU-a", 1000 * MIB, 30),)


def governor(root, pods, clock):
    """Feedback with a clock that is set by hand."""
    return Governor(
        root, lambda: pods, threading.Event(), wall_ns=lambda: clock[0], now=lambda: clock[0] / 1e9
    )


def write_without_end(root, pods, high, first, ready):
    """A monitor that tells something at every look; `ready` after as many as `first`."""
    clock = [NOW]
    looking = governor(root, pods, clock)
    for number in itertools.count(1):
        if number % 2:
            high.process(0, last_s=clock[0] / 1e9)
        looking.look()
        clock[0] += IDLE_NS + 10 * MS
        if number == first:
            ready()


@pytest.fixture
def pair(root, granted, make_pod):
    """Two pods that share a card, one of low priority; a usage file of the other one."""
    usages = {name: granted(f"{name}_main", ("GPU-a", 1000, 30)) for name in ("high", "low")}
    for priority, name in enumerate(usages):
        write_control(root / f"{name}_main/control", Control(GRANT, priority=priority))
    return [make_pod(name, "main") for name in usages], usages["high"]


def killed(work, moment_s):
    """Run `work` in a process that is killed a while after it said so, without a word to it."""
    began, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(lambda: os.write(tell, b"!"))
        finally:
            os._exit(1)
    os.close(tell)
    assert os.read(began, 1) == b"!", "it ended before it had told anything"
    threading.Event().wait(moment_s)  # the moment itself is what this test varies
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(began)
    assert os.WIFSIGNALED(status), "it ended by an error of its own"


def test_killed_at_any_moment_it_leaves_whole_files(root, pair):
    """The grant stays, nobody waits for longer than a lease, and the files can be written."""
    pods, high = pair
    rng = random.Random(9)
    path = root / "low_main/control"
    seen = set()
    for number in range(KILLS):
        work = partial(write_without_end, root, pods, high, 1 + number % 2)
        killed(work, rng.uniform(0, 0.02))
        left = read_control(path)
        seen.add(left.blocked)
        assert (left.devices, left.priority) == (GRANT, 1)
        assert left.blocked is (left.blocked_until_ns > 0)
        # Whoever writes next is not kept out by the lock of the one that is gone.
        write_control(path, Control(GRANT, priority=1, log_level=number % 5))
        assert read_control(path).log_level == number % 5
    assert seen == {True, False}, "it was never killed in both states"


def test_the_next_one_takes_over_what_a_killed_one_told(root, pair):
    """It renews the wait while there is a reason, and ends it when there is none."""
    pods, high = pair
    clock = [NOW]
    high.process(0, last_s=clock[0] / 1e9)
    governor(root, pods, clock).look()  # and then it is gone
    path = root / "low_main/control"
    assert read_control(path).blocked_until_ns == pytest.approx(clock[0] + LEASE_NS, abs=1000)
    clock[0] += LEASE_NS // 2 + MS
    high.process(0, last_s=clock[0] / 1e9)
    heir = governor(root, pods, clock)
    heir.look()
    assert read_control(path).blocked_until_ns == pytest.approx(clock[0] + LEASE_NS, abs=1000)
    clock[0] += IDLE_NS + MS
    heir.look()
    assert not read_control(path).blocked


def vandal(folder, rng):
    """One act of a tenant who would spoil the looks of others."""
    path = folder / rng.choice(["usage", "usage", "control"])
    act = rng.randrange(8)
    with suppress(OSError):
        if act <= 2:
            with path.open("r+b") as file:
                file.seek(rng.randrange(300_000))
                file.write(rng.randbytes(rng.randrange(1, 5000)))
        elif act == 3:
            os.truncate(path, rng.choice([0, 16, 4096, 8192 + 1152 * 8, 303_103, 1 << 40]))
        else:
            path.unlink() if not path.is_dir() else path.rmdir()
            make = (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"))
            if act < 7:
                make[act - 4]()
            else:
                path.write_bytes(b"HAMIUSGE\x01\0\0\0\0\xa0\x04\0".ljust(303_104, b"\x01"))


class Seen:
    """The same processes each time."""

    def __init__(self, *found):
        self._found = {process.pid: process for process in found}

    def look_up(self, _pids):
        return self._found


def process(number, uid):
    """A process of a container, in the slot that the limiter gave it."""
    return Process(1000 + number, 40, 1, "python", (Owner(uid, container_id(uid, "main")),))


def test_who_spoils_its_files_harms_itself_alone(root, granted, make_pod):
    """While a tenant writes garbage, the honest neighbour is seen, not accused, and not stopped."""
    honest, spoilt = granted("honest_main", ("GPU-a", 1000, 30)), root / "odd_main"
    granted("odd_main", ("GPU-a", 1000, 30))
    honest.process(0, buffer=100 * MIB)
    honest.used(0, 100 * MIB)
    pods = [make_pod("honest", "main"), make_pod("odd", "main")]
    seen = Seen(process(1, "honest"), process(2, "odd"))
    auditor = Auditor(
        lambda: pods, seen, Holdings(root, overhead_bytes=0), told=HostPids(root).tell
    )
    clock = [NOW]
    feedback = governor(root, pods, clock)
    registry = register(
        CollectorRegistry(),
        ContainerCollector(root, lambda: pods, auditor.sight),
        FeedbackCollector(feedback, "n"),
    )
    occupants = (Occupant(1001, 110 * MIB, 5), Occupant(1002, 110 * MIB, 5))
    card = CardReading(Card("GPU-a", 0, "A100", 40_000), occupants=occupants)
    rng, enough = random.Random(9), threading.Event()

    def storm():
        while not enough.is_set():
            vandal(spoilt, rng)

    tenant = threading.Thread(target=storm)
    tenant.start()
    try:
        for number in range(LOOKS):
            clock[0] += 6_000 * MS  # beyond the pace at which containers are listed anew
            news = auditor.watch(HostState(True, (card,)))
            feedback.look()
            text = render(registry).decode()
            who = 'container="main",namespace="ns",pod="pod-honest"'
            assert f'hami_container_blocked{{{who},zone="vGPU"}} 0.0' in text, number
            [used] = [
                line
                for line in text.splitlines()
                if line.startswith("hami_vgpu_memory_used_bytes") and "pod-honest" in line
            ]
            assert float(used.rpartition(" ")[2]) == 100 * MIB
            assert news >= 0
    finally:
        enough.set()
        tenant.join()
    accused = {finding.place.pod for finding in auditor.news().standing}
    assert "pod-honest" not in accused
    assert 'hami_monitor_unreadable_files_total{file="usage",reason=' in text
    assert read_usage(honest.path).processes[0].host_pid == 1001
    shutil.rmtree(spoilt)
    feedback.look()
    assert render(registry)
