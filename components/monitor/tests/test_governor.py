"""Decisions on their way into control files, with the files alone."""

import threading
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from hami_monitor import governor as module
from hami_monitor.feedback import IDLE_NS, MS
from hami_monitor.governor import (
    COMPANY_S,
    FAST_S,
    LEASE_NS,
    REFRESH_S,
    SLOW_S,
    FeedbackCollector,
    Governor,
)
from hamikit.region import Control, ControlDevice, read_control, write_control

NOW = 1_700_000_000_000_000_000


class Node:
    """Containers on card GPU-a, and the clock."""

    def __init__(self, root, granted, make_pod):
        self.root, self.granted, self.make_pod = root, granted, make_pod
        self.pods, self.usages, self.ns = [], {}, NOW
        self.changed = threading.Event()
        self.governor = Governor(
            root,
            lambda: self.pods,
            self.changed,
            wall_ns=lambda: self.ns,
            now=lambda: self.ns / 1e9,
        )

    def add(self, name, priority, *, card="GPU-a"):
        """A container with one process."""
        self.usages[name] = self.granted(f"{name}_main", (card, 1000, 30))
        control = Control((ControlDevice(card, 1 << 20, 30),), priority=priority)
        write_control(self.path(name), control)
        self.usages[name].process(0)
        self.pods.append(self.make_pod(name, "main"))
        self.changed.set()

    def path(self, name):
        return self.root / f"{name}_main" / "control"

    def launch(self, name):
        """The container launches something now."""
        self.usages[name].process(0, last_s=self.ns / 1e9)

    def look(self, *, after_ms=0):
        """One look, later; returns the pause that it wants."""
        self.ns += after_ms * MS
        return self.governor.look()

    def told(self, name):
        """What the control file says now."""
        found = read_control(self.path(name))
        return (found.blocked, found.contended)


@pytest.fixture
def node(root, granted, make_pod):
    """A node without containers."""
    return Node(root, granted, make_pod)


def test_low_waits_while_high_computes(node):
    """Told by the control file, of which all else stays as it was."""
    node.add("low", 1)
    node.add("high", 0)
    node.launch("high")
    before = read_control(node.path("low"))
    assert node.look() == FAST_S
    assert node.told("low") == (True, True)
    assert node.told("high") == (False, False)
    told = read_control(node.path("low"))
    assert replace(told, blocked=False, contended=False, blocked_until_ns=0) == before
    node.look(after_ms=IDLE_NS // MS + 1)
    assert node.told("low") == (False, True)


def test_who_waits_does_so_on_a_lease(node):
    """Renewed while the reason lasts, so that it ends with a monitor that was killed."""
    node.add("low", 1)
    node.add("high", 0)
    node.launch("high")
    node.look()
    first = read_control(node.path("low")).blocked_until_ns
    assert first == pytest.approx(node.ns + LEASE_NS, rel=0, abs=1000)
    node.launch("high")
    node.look(after_ms=25)
    assert read_control(node.path("low")).blocked_until_ns == first
    node.ns += LEASE_NS // 2
    node.launch("high")
    node.look(after_ms=25)
    renewed = read_control(node.path("low")).blocked_until_ns
    assert renewed == pytest.approx(node.ns + LEASE_NS, rel=0, abs=1000)
    node.look(after_ms=IDLE_NS // MS + 1)
    assert read_control(node.path("low")).blocked_until_ns == 0


def test_looks_as_often_as_there_is_a_reason(node):
    """Alone: when something changes; beside others: now and then; with priorities: often."""
    assert node.look() == REFRESH_S
    node.add("one", 1)
    assert node.look() == REFRESH_S
    node.add("apart", 0, card="GPU-b")
    assert node.look() == REFRESH_S
    node.add("two", 1)
    assert node.look() == COMPANY_S
    node.add("high", 0)
    assert node.look() == FAST_S


def test_a_new_process_is_seen_within_the_slow_pace(node):
    """Between two scans only known processes are sure to be read, and of those that press only."""
    node.add("low", 1)
    node.add("high", 0)
    node.look()
    node.usages["high"].process(70, last_s=node.ns / 1e9 + 0.1)
    node.look(after_ms=100)
    assert node.told("low") == (False, False)
    node.launch("high")
    node.usages["high"].process(70, last_s=node.ns / 1e9 + 0.15)
    node.look(after_ms=int(SLOW_S * 1000))
    assert node.told("low")[0] is True


def test_an_account_that_cannot_be_read_makes_nobody_wait(node):
    """A tenant that spoils its own file gains no priority by it."""
    node.add("low", 1)
    node.add("high", 0)
    node.launch("high")
    node.usages["high"].path.write_bytes(b"")
    node.look()
    assert node.told("low") == (False, False)


def test_who_ends_lets_everybody_go(node):
    """Whom it keeps waiting would wait for ever."""
    node.add("low", 1)
    node.add("high", 0)
    node.launch("high")
    stopping = threading.Event()
    thread = node.governor.start(stopping)
    deadline = threading.Event()
    for _ in range(3000):
        if node.told("low")[0]:
            break
        deadline.wait(0.01)
    assert node.told("low")[0] is True
    stopping.set()
    node.changed.set()
    thread.join(30)
    assert not thread.is_alive()
    assert node.told("low") == (False, False)


def test_what_a_killed_monitor_left_is_put_right(node):
    """The first look after its return finds the container told to wait for nobody."""
    node.add("low", 1)
    node.add("high", 0)
    write_control(node.path("low"), replace(read_control(node.path("low")), blocked=True))
    node.look()
    assert node.told("low") == (False, False)


def test_a_file_that_cannot_be_written_is_counted_and_tried_again(node, monkeypatch):
    """As where a device plugin of before made it; not at every look, and the log has it once."""
    node.add("low", 1)
    node.add("high", 0)
    node.launch("high")

    def refuse(_path, _change):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "update_control", refuse)
    with capture_logs() as said:
        node.look()
        node.look(after_ms=25)
        assert node.governor.writes() == {"failed": 1}
        for _ in range(2):
            node.ns += int(REFRESH_S * 1e9)
            node.launch("high")
            node.look()
    assert [line["pod"] for line in said] == ["ns/pod-low"]
    failed = node.governor.writes()["failed"]
    assert failed == 3
    monkeypatch.undo()
    node.ns += int(REFRESH_S * 1e9)
    node.launch("high")
    node.look()
    assert (node.told("low"), node.governor.writes()) == (
        (True, True),
        {"failed": failed, "written": 1},
    )


def test_a_container_that_is_gone_is_forgotten(node):
    """Its pod went, or its folder did while it was being told."""
    node.add("low", 1)
    node.add("high", 0)
    node.launch("high")
    node.governor._refresh()
    node.path("low").unlink()
    node.governor._refreshed = node.ns / 1e9
    node.governor._changed.clear()
    node.look()
    assert node.governor.writes() == {"gone": 1}
    node.pods.clear()
    node.changed.set()
    node.look()
    assert node.governor.standing() == ()


def test_folders_of_hamis_are_left_to_it(node):
    """Its limiter reads no control file, and its container could forge one."""
    node.add("low", 1)
    node.add("high", 0)
    node.launch("high")
    (node.root / "low_main").chmod(0o777)
    node.look()
    assert node.told("low") == (False, False)


@pytest.mark.parametrize(("priority", "shown"), [(-5, 0.0), (2**31 - 1, 15.0)])
def test_a_priority_out_of_range_is_clamped(node, priority, shown):
    """Whatever stands in the file."""
    node.add("odd", priority)
    node.look()
    assert node.governor.standing()[0].priority == shown


def test_the_decision_and_its_reason_are_metrics(node):
    """For the question: why does it not run?"""
    node.add("low", 1)
    node.add("high", 0)
    node.launch("high")
    node.look()
    registry = CollectorRegistry()
    registry.register(FeedbackCollector(node.governor, "node-1"))
    text = generate_latest(registry).decode()
    low = 'container="main",namespace="ns",pod="pod-low"'
    assert f'hami_container_blocked{{{low},zone="vGPU"}} 1.0' in text
    assert f'hami_container_priority{{{low},zone="vGPU"}} 1.0' in text
    why = f'hami_container_feedback_info{{{low},reason="higher_priority_active",zone="vGPU"}} 1.0'
    assert why in text
    assert 'hami_feedback_writes_total{node="node-1",outcome="written",zone="vGPU"} 1.0' in text
