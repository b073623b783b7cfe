"""Looking up processes, by the kernel's own /proc and by one made here."""

import os
import subprocess
import sys
import threading

import pytest

from hami_monitor.cgroups import Owner
from hami_monitor.processes import Process, Processes, read_process

UID, CID = "8f2c1d6e-0a1b-4c3d-9e8f-0123456789ab", "c" * 64
STAT = "{pid} ({command}) {state} 1 " + "0 " * 17 + "{start} 0 0\n"


@pytest.fixture
def proc(tmp_path):
    """Writes processes into a /proc of the test's own."""

    def write(pid, *, command="python", state="S", start=77, status="NSpid:\t{pid}\t5\t9\n"):
        folder = tmp_path / str(pid)
        folder.mkdir(exist_ok=True)
        text = STAT.format(pid=pid, command=command, state=state, start=start)
        (folder / "stat").write_text(text)
        (folder / "status").write_text("Name:\tx\n" + status.format(pid=pid))
        (folder / "cgroup").write_text(f"0::/kubepods/pod{UID}/{CID}\n")
        return tmp_path

    return write


def test_what_proc_says(proc):
    """The PID in the innermost namespace, the start time, the owner; any name."""
    root = proc(40, command="a) (b 1 2")
    expected = Process(40, 9, 77, "a) (b 1 2", (Owner(UID, CID),))
    assert read_process(str(root), 40) == expected


def test_a_kernel_without_nested_pids(proc):
    """Then the PID is the same inside and out."""
    assert read_process(str(proc(40, status="")), 40).ns_pid == 40


@pytest.mark.parametrize("state", ["Z", "X"])
def test_what_has_ended_is_gone(proc, state):
    """A zombie holds nothing any more."""
    assert read_process(str(proc(40, state=state)), 40) is None
    assert read_process(str(proc(40)), 41) is None


def test_without_descriptors_every_look_is_fresh(proc):
    """An old kernel, or too many files: a PID that is used anew is seen as such."""

    def refuse(_pid):
        raise OSError(24, "Too many open files")

    root = proc(40)
    processes = Processes(str(root), open_process=refuse)
    assert processes.look_up([40])[40].start_time == 77
    proc(40, start=99)
    assert processes.look_up([40])[40].start_time == 99
    processes.close()


def child():
    """A process that lives until its input is closed."""
    code = "import sys; print('x', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"x\n"
    return process


def test_a_living_process_is_read_once_and_forgotten_when_it_ends(tmp_path):
    """The kernel says when it ends; nothing is read for it in between."""
    running = child()
    (tmp_path / str(running.pid)).symlink_to(f"/proc/{running.pid}")
    processes = Processes(str(tmp_path))
    first = processes.look_up([running.pid])[running.pid]
    assert first.ns_pid > 0
    (tmp_path / str(running.pid)).unlink()
    assert processes.look_up([running.pid]) == {running.pid: first}
    running.communicate()
    assert processes.look_up([running.pid]) == {}
    processes.close()


def test_keeps_no_descriptor_of_what_nobody_asks_for():
    """Descriptors are as many as processes on the cards, whatever came and went."""
    before = len(os.listdir("/proc/self/fd"))
    processes = Processes()
    processes.look_up([os.getpid(), threading.get_native_id(), 1])
    processes.look_up([])
    processes.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_our_own_process_is_found():
    """The real /proc, cgroup v1 or v2."""
    processes = Processes()
    own = processes.look_up([os.getpid()])[os.getpid()]
    processes.close()
    assert (own.pid, own.ns_pid) == (os.getpid(), os.getpid())
    assert own.command.startswith("py")
