"""Processes: who is alive, what a fork inherits, whose PID a reader sees."""

import json
import subprocess
import sys

MIB = 1 << 20
CONTEXT = 4 * MIB
NOT_INITIALIZED = 3
INVALID_CONTEXT = 201


def test_calls_before_cuinit_are_refused(node):
    """Nothing works before cuInit."""
    guest = node.guest(ready=False)
    assert guest.ask("info")[0] == NOT_INITIALIZED
    assert guest.ask("init") == 0
    assert guest.ask("info")[0] == INVALID_CONTEXT


def test_a_forks_child_starts_anew(node):
    """The child has no driver, no contexts and no memory of its parent's, and can begin again."""
    parent = node.guest()
    assert parent.ask("alloc", 10 * MIB)[0] == 0
    before, init, stale, retain, alloc = parent.ask("fork", 20 * MIB)
    assert before == NOT_INITIALIZED
    assert (init, stale, retain, alloc) == (0, INVALID_CONTEXT, 0, 0)


def test_a_forks_end_takes_nothing_from_its_parent(node):
    """After the child has come and gone the parent still holds exactly its own."""
    parent = node.guest()
    _, va = parent.ask("alloc", 10 * MIB)
    parent.ask("fork", 20 * MIB)
    assert node.used() == CONTEXT + 10 * MIB
    assert parent.ask("free", va) == 0
    assert node.used() == CONTEXT


def test_nvml_in_the_same_process_keeps_the_process_alive(node):
    """Calls of nvmlInit and nvmlShutdown beside libcuda do not drop the process's registration."""
    code = (
        "import ctypes, pynvml as n\n"
        "c = ctypes.CDLL('libcuda.so.1')\n"
        "ctx = ctypes.c_void_p()\n"
        "assert c.cuInit(0) == 0\n"
        "assert c.cuDevicePrimaryCtxRetain(ctypes.byref(ctx), 0) == 0\n"
        "n.nvmlInit()\n"
        "own = n.nvmlDeviceGetComputeRunningProcesses(n.nvmlDeviceGetHandleByIndex(0))\n"
        "n.nvmlShutdown()\n"
        "import os\n"
        "assert [p.pid for p in own] == [os.getpid()]\n"
        "print('ready', flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=node.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        assert node.used() == CONTEXT
        process.communicate("\n")
    assert node.used() == 0


def test_nvml_lists_processes_with_their_memory(node):
    """A reader on the host sees each process with a context, and its bytes."""
    first, second = node.guest(), node.guest()
    second.ask("alloc", 6 * MIB)
    listed = node.nvml(
        "[(p.pid, p.usedGpuMemory) for p in"
        " n.nvmlDeviceGetComputeRunningProcesses(n.nvmlDeviceGetHandleByIndex(0))]"
    )
    assert sorted(listed) == sorted([[first.pid, CONTEXT], [second.pid, CONTEXT + 6 * MIB]])


def test_newer_process_lists_agree_with_the_older(node):
    """The detail list names the same process and bytes."""
    guest = node.guest()
    ask = (
        "[(p.pid, p.usedGpuMemory) for p in"
        " n.nvmlDeviceGetRunningProcessDetailList(n.nvmlDeviceGetHandleByIndex(0), {}, 0)]"
    ).format("n.nvmlProcessDetailList_v1")
    assert node.nvml(ask) == [[guest.pid, CONTEXT]]


def test_pids_are_those_of_the_readers_namespace(node):
    """The host sees a container's process by its host PID; the container never sees the host's."""
    outside = node.guest()
    inner = f"{node.build}/cuprobe hold 2 forever & read x; {node.build}/fakegpu ledger; kill $!"
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--pid", "--fork", "sh", "-c", inner],
        env=node.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as container:
        held = json.loads(container.stdout.readline())
        host_view = {p["pid"]: p["ns_pid"] for p in node.ledger()[0]["processes"]}
        text, _ = container.communicate("\n")
    inside_view = [p["pid"] for p in json.loads(text.splitlines()[0])["cards"][0]["processes"]]
    assert host_view[outside.pid] == outside.pid
    assert held["pid"] in host_view.values()
    assert 0 not in host_view
    assert sorted(inside_view) == sorted([0, held["pid"]])


def test_hold_frees_on_sigterm(node):
    """`cuprobe hold` gives its memory back and ends well when it is asked to."""
    with subprocess.Popen(
        [node.build / "cuprobe", "hold", "10", "forever"],
        env=node.env,
        stdout=subprocess.PIPE,
        text=True,
    ) as probe:
        assert json.loads(probe.stdout.readline())["result"] == "CUDA_SUCCESS"
        assert node.used() == CONTEXT + 10 * MIB
        probe.terminate()
        assert json.loads(probe.stdout.readline()) == {"freed": "CUDA_SUCCESS", "signalled": True}
    assert probe.returncode == 0
    assert node.used() == 0
