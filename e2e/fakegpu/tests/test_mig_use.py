"""Programs on MIG devices: what CUDA shows them, and who holds an instance up."""

import json
import subprocess

import pytest

from e2e.fakegpu.tests.mig import ask

IN_USE, NOT_SUPPORTED = 19, 3
NO_DEVICE, UNKNOWN, OUT_OF_MEMORY = 100, 999, 2
MIB = 1 << 20

SMALL = """
[card]
model = Small
memory_mib = 64
context_mib = 4
count = 2
sm = 14
mig = yes
mig_change = at-once
mig_slices = 4
mig_profile = 1g.16mb 0 14 1 3 16 4 0,1,2,3:1
mig_profile = 2g.32mb 1 5 2 7 32 2 0,2:2
"""


@pytest.fixture
def node(make_node):
    """A node whose first card has an instance of 16 and one of 32 MiB."""
    node = make_node(SMALL)
    ask(node, "on()", "[device(14, 0), device(5, 2, 2, 1)]")
    return node


@pytest.fixture
def uuids(node):
    """The two MIG devices: 16 MiB, 32 MiB."""
    found = ask(node, "{n.nvmlDeviceGetGpuInstanceId(m): n.nvmlDeviceGetUUID(m) for m in migs()}")
    return found["3"], found["2"]


@pytest.fixture
def start(node):
    """Starts a process with these CUDA_VISIBLE_DEVICES and a context."""

    def start(visible):
        return node.guest(CUDA_VISIBLE_DEVICES=visible)

    return start


def probe(node, visible=None):
    """What `cuprobe info` sees."""
    env = {**node.env, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})}
    done = subprocess.run(
        [node.build / "cuprobe", "info"], env=env, check=False, capture_output=True
    )
    return json.loads(done.stdout)


def test_an_instance_is_a_device_of_its_memory(node, uuids, start):
    """Total, allocations and their end are the instance's."""
    guest = start(uuids[1])
    assert guest.ask("count") == [0, 1]
    assert guest.ask("info") == [0, 28 * MIB, 32 * MIB]
    assert guest.ask("uuid") == [0, uuids[1].removeprefix("MIG-").replace("-", "")]
    assert guest.ask("alloc", 28 * MIB)[0] == 0
    assert guest.ask("alloc", 2 * MIB)[0] == OUT_OF_MEMORY
    other = start(uuids[0])
    assert other.ask("info") == [0, 12 * MIB, 16 * MIB]


def test_a_process_sees_one_instance_and_no_card_beside_it(node, uuids):
    """Without a wish the first; of several named the first; else the card without MIG."""
    whole = node.ledger()[1]["uuid"]
    assert [card["uuid"] for card in probe(node)["cards"]] == [uuids[1].replace("MIG-", "GPU-")]
    names = {
        "0": uuids[1],
        f"{whole},{uuids[0]}": uuids[0],
        f"{uuids[0]},{uuids[1]}": uuids[0],
        uuids[0][:12]: uuids[0],
        "1": whole,
        whole: whole,
    }
    for visible, expected in names.items():
        (card,) = probe(node, visible)["cards"]
        assert card["uuid"] == expected.replace("MIG-", "GPU-"), visible
    for visible in ("MIG-nobody", node.ledger()[0]["uuid"]):
        assert probe(node, visible)["code"] == NO_DEVICE


def test_nvml_sees_processes_on_their_instance(node, uuids, start):
    """On the MIG handle the process, on the card all with the ids of their instances."""
    first, second = start(uuids[0]), start(uuids[1])
    second.ask("alloc", 6 * MIB)
    listed = ask(
        node,
        "rows = lambda h: sorted([p.pid, p.usedGpuMemory >> 20, p.gpuInstanceId,"
        " p.computeInstanceId] for p in n.nvmlDeviceGetComputeRunningProcesses(h))",
        "[[rows(m) for m in migs()], rows(card()), rows(card(1))]",
    )
    mine, other = [first.pid, 4, 3, 0], [second.pid, 10, 2, 0]
    assert listed == [[[other], [mine]], sorted([mine, other]), []]
    memory = "[n.nvmlDeviceGetMemoryInfo(h).used >> 20 for h in [*migs(), card()]]"
    assert ask(node, memory) == [10, 4, 14]


def test_a_card_in_mig_mode_tells_no_utilisation(node):
    """As the real library does not."""
    load = "error(n.nvmlDeviceGetUtilizationRates, card({}))"
    assert ask(node, load.format(0)) == NOT_SUPPORTED
    assert ask(node, load.format(1)) == 0


def test_an_instance_in_use_cannot_be_destroyed(node, uuids, start):
    """Until the process that has a context there ended, be it by kill -9."""
    guest = start(uuids[0])
    gone = "[error(n.nvmlComputeInstanceDestroy, ci(3)), error(n.nvmlGpuInstanceDestroy, by_id(3))]"
    assert ask(node, gone) == [IN_USE, IN_USE]
    assert guest.ask("alloc", 2 * MIB)[0] == 0
    guest.kill()
    assert ask(node, gone) == [0, 0]
    assert ask(node, "len(migs())") == 1


def test_nobody_starts_on_an_instance_that_is_gone(node, uuids):
    """Also where it was cut anew between cuInit and the first context."""
    guest = node.guest(ready=False, CUDA_VISIBLE_DEVICES=uuids[0])
    assert guest.ask("init") == 0
    gone = "n.nvmlComputeInstanceDestroy(ci(3)); n.nvmlGpuInstanceDestroy(by_id(3))"
    assert ask(node, gone, "0") == 0
    assert guest.ask("retain") == UNKNOWN
    ask(node, "device(14, 0)")
    assert guest.ask("retain") == UNKNOWN


def test_what_the_dead_left_is_not_in_the_next_instance(node, uuids, start):
    """An instance made where a process died holds nothing."""
    guest = start(uuids[0])
    guest.ask("alloc", 8 * MIB)
    guest.kill()
    gone = "n.nvmlComputeInstanceDestroy(ci(3)); n.nvmlGpuInstanceDestroy(by_id(3))"
    ask(node, gone, "device(14, 0)")
    assert start(uuids[0]).ask("info") == [0, 12 * MIB, 16 * MIB]


def test_compute_instances_share_the_memory_of_theirs(make_node, start, node):
    """Two processes on two halves fill one memory, and hold up each its own half."""
    ask(node, "on(1)", "0")
    ask(node, "gi = cut(5, 0, 2, 1); compute(gi); compute(gi)", "0")
    halves = ask(node, "[n.nvmlDeviceGetUUID(m) for m in migs(1)]")
    first, second = start(halves[0]), start(halves[1])
    assert first.ask("alloc", 20 * MIB)[0] == 0
    assert second.ask("info") == [0, 4 * MIB, 32 * MIB]
    lists = "[[p.pid for p in n.nvmlDeviceGetComputeRunningProcesses(m)] for m in migs(1)]"
    assert ask(node, lists) == [[first.pid], [second.pid]]
    second.kill()
    drop = "error(n.nvmlComputeInstanceDestroy,"
    half = "n.nvmlGpuInstanceGetComputeInstanceById(by_id(1, 1), {}))"
    assert ask(node, drop + half.format(0)) == IN_USE
    assert ask(node, drop + half.format(1)) == 0


def test_mig_is_not_turned_on_under_a_program(node, start):
    """Nor does a Hopper card do that."""
    start(node.ledger()[1]["uuid"])
    assert ask(node, "on(1)") == IN_USE
