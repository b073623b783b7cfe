"""What NVML shows inside a container: its own processes and what they are charged, by any call."""

import json
import sys

import pytest

from hamikit.region import HostPid, OverheadPolicy, note_host_pids

MIB = 1 << 20
CONTEXT = 4 * MIB  # conftest.CARDS

LISTS = """
import json, sys, pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(int(sys.argv[1]))
def rows(call):
    return sorted([row.pid, row.usedGpuMemory] for row in call(card))
print(json.dumps({
    "v3": rows(pynvml.nvmlDeviceGetComputeRunningProcesses),
    "v2": rows(pynvml.nvmlDeviceGetComputeRunningProcesses_v2),
    "graphics": rows(pynvml.nvmlDeviceGetGraphicsRunningProcesses),
    "mps": rows(pynvml.nvmlDeviceGetMPSComputeRunningProcesses),
    "used": pynvml.nvmlDeviceGetMemoryInfo(card).used,
}))
"""


def lists(container, card: int = 0):
    """What pynvml finds in a container."""
    result = container.run(sys.executable, "-c", LISTS, str(card))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_container_sees_its_own_processes(containers):
    """Each with what it is charged, though others compute on the card; the rows add up to used."""
    ours, other = containers(1000), containers(500)
    first, second, third = ours.ready(), ours.ready(), other.ready()
    first.ask("alloc", 100 * MIB)
    second.ask("alloc", 50 * MIB)
    third.ask("alloc", 400 * MIB)
    expected = sorted([[first.process.pid, 100 * MIB], [second.process.pid, 50 * MIB]])
    seen = lists(ours)
    assert (seen["v3"], seen["v2"]) == (expected, expected)
    assert (seen["graphics"], seen["mps"]) == ([], [])
    assert sum(used for _, used in seen["v3"]) == seen["used"]
    assert lists(other)["v3"] == [[third.process.pid, 400 * MIB]]


def test_a_strict_policy_counts_contexts_in_the_rows_too(containers):
    """Rows and the card's used agree under either policy."""
    container = containers(1000, overhead_policy=OverheadPolicy.STRICT)
    guest = container.ready()
    guest.ask("alloc", 100 * MIB)
    seen = lists(container)
    assert seen["v3"] == [[guest.process.pid, 100 * MIB + CONTEXT]]
    assert seen["used"] == 100 * MIB + CONTEXT


def test_nvidia_smi_shows_rows_that_agree_with_the_card(container):
    """A context alone is a row of 0 MiB, and a killed process is none."""
    idle, busy, dead = container.ready(), container.ready(), container.ready()
    busy.ask("alloc", 250 * MIB)
    dead.ask("alloc", 100 * MIB)
    dead.kill()
    shown = container.run(str(container.fake.folder / "nvidia-smi")).stdout
    rows = {line.split()[2]: line for line in shown.splitlines() if "   C   " in line}
    assert "250MiB" in rows[str(busy.process.pid)]
    assert " 0MiB" in rows[str(idle.process.pid)]
    assert str(dead.process.pid) not in rows
    assert "250MiB /    1000MiB" in shown


def test_a_card_that_was_not_granted_shows_no_processes(containers):
    """Whoever computes on it is none of this container's business."""
    ours, other = containers(1000), containers(None)
    assert other.start().ask("init", 1) == 0
    assert lists(ours, 1)["v3"] == []


def test_a_container_without_limits_sees_what_the_driver_says(containers):
    """Contexts included, as on a card of one's own."""
    container = containers(None)
    guest = container.ready()
    assert lists(container)["v3"] == [[guest.process.pid, CONTEXT]]


def test_a_list_that_is_too_short_says_how_long_it_must_be(container):
    """NVML's own manners: INSUFFICIENT_SIZE with the count, and rows up to the room there is."""
    pids = {container.ready().process.pid, container.ready().process.pid}
    guest = container.start()
    for size in (16, 24):
        assert guest.ask("processes", size, 0) == [7, 2, []]
        result, count, rows = guest.ask("processes", size, 1)
        assert (result, count, len(rows)) == (7, 2, 1)
        result, count, rows = guest.ask("processes", size, 5)
        assert (result, count) == (0, 2)
        assert {pid for pid, _ in rows} == pids


HOST = 500_000


def tell_host_pids(container) -> None:
    """What the monitor does."""
    pids = [HostPid(p.slot, p.pid + HOST, p.start_time) for p in container.usage.processes]
    note_host_pids(container.folder / "usage", pids)


DETAILS = """
import json, pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
print(json.dumps([
    sorted([row.pid, row.usedGpuMemory] for row in pynvml.nvmlDeviceGetRunningProcessDetailList(
        card, pynvml.nvmlProcessDetailList_v1, mode))
    for mode in (0, 1, 2)]))
"""


def test_the_list_of_details_is_the_containers_too(containers):
    """The newer form of the list, in each of its modes."""
    ours, other = containers(1000), containers(500)
    guest = ours.ready()
    guest.ask("alloc", 100 * MIB)
    other.ready()
    result = ours.run(sys.executable, "-c", DETAILS)
    assert json.loads(result.stdout) == [[[guest.process.pid, 100 * MIB]], [], []], result.stderr


SAMPLES = """
import json, pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
def ask(call):
    try:
        return sorted(sample.pid for sample in call())
    except pynvml.NVMLError_NotFound:
        return None
def info():
    return pynvml.nvmlDeviceGetProcessesUtilizationInfo(card, 0)
print(json.dumps([ask(lambda: pynvml.nvmlDeviceGetProcessUtilization(card, 0)), ask(info)]))
"""


@pytest.mark.parametrize("busy", [True, False])
def test_utilisation_is_of_the_containers_own_processes(containers, busy):
    """Another container's load is not seen; with none of its own NVML says that there is none."""
    ours, other = containers(1000), containers(500)
    idle, loud = ours.ready(), other.ready()
    assert loud.ask("work", 100) == 0
    assert not busy or idle.ask("work", 100) == 0
    result = ours.run(sys.executable, "-c", SAMPLES)
    expected = [idle.process.pid] if busy else None
    assert json.loads(result.stdout) == [expected, expected], result.stderr


def test_utilisation_is_found_by_host_pids_where_nvml_has_those(container):
    """The monitor has written them into the slots; programs see their own."""
    container.use_driver(pid_offset=HOST)
    guest = container.ready()
    assert guest.ask("work", 100) == 0
    assert json.loads(container.run(sys.executable, "-c", SAMPLES).stdout) == [None, None]
    tell_host_pids(container)
    assert guest.ask("work", 100) == 0
    result = container.run(sys.executable, "-c", SAMPLES)
    assert json.loads(result.stdout) == [[guest.process.pid]] * 2, result.stderr
