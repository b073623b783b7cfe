"""Calls of NVML that fail, and processes that die in the middle of cutting a card."""

import signal
import subprocess
import sys

import pytest

from e2e.fakegpu.tests.mig import ask, run

IN_USE, INSUFFICIENT_RESOURCES = 19, 23
CUT, COMPUTE = "nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceCreateComputeInstance"
UNCUT, UNCOMPUTE = "nvmlGpuInstanceDestroy", "nvmlComputeInstanceDestroy"
KILLED = -signal.SIGKILL


@pytest.fixture
def node(make_node):
    """A node of A100 with MIG on, on its first card."""
    node = make_node("a100.txt")
    assert ask(node, "on()") == 0
    return node


CALLS = {
    "nvmlInit_v2": "n.nvmlInit()",
    "nvmlDeviceGetCount_v2": "n.nvmlDeviceGetCount()",
    "nvmlDeviceGetHandleByIndex_v2": "bool(card())",
    "nvmlDeviceGetUUID": "n.nvmlDeviceGetUUID(card())",
    "nvmlDeviceGetMigMode": "n.nvmlDeviceGetMigMode(card())",
    "nvmlDeviceSetMigMode": "on()",
    "nvmlDeviceGetMaxMigDeviceCount": "n.nvmlDeviceGetMaxMigDeviceCount(card())",
    "nvmlDeviceGetMigDeviceHandleByIndex": "len(migs())",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": (
        "n.nvmlDeviceGetUUID(n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(migs()[0]))"
    ),
    "nvmlDeviceIsMigDeviceHandle": "n.nvmlDeviceIsMigDeviceHandle(card()).value",
    "nvmlDeviceGetGpuInstanceId": "n.nvmlDeviceGetGpuInstanceId(migs()[0])",
    "nvmlDeviceGetComputeInstanceId": "n.nvmlDeviceGetComputeInstanceId(migs()[0])",
    "nvmlDeviceGetAttributes_v2": "n.nvmlDeviceGetAttributes(migs()[0]).memorySizeMB",
    "nvmlDeviceGetComputeRunningProcesses_v3": "n.nvmlDeviceGetComputeRunningProcesses(migs()[0])",
    "nvmlDeviceGetGpuInstanceProfileInfoV": "profile(0).id",
    "nvmlDeviceGetGpuInstancePossiblePlacements_v2": "places(19)",
    "nvmlDeviceGetGpuInstanceRemainingCapacity": (
        "n.nvmlDeviceGetGpuInstanceRemainingCapacity(card(), 19)"
    ),
    "nvmlDeviceGetGpuInstances": "instances()",
    "nvmlDeviceGetGpuInstanceById": "n.nvmlGpuInstanceGetInfo(by_id(7)).id",
    "nvmlGpuInstanceGetInfo": "n.nvmlGpuInstanceGetInfo(by_id(7)).id",
    "nvmlGpuInstanceGetComputeInstanceProfileInfoV": (
        "n.nvmlGpuInstanceGetComputeInstanceProfileInfo(by_id(7), 0, 0).id"
    ),
    "nvmlGpuInstanceGetComputeInstanceById": "n.nvmlComputeInstanceGetInfo(ci(7)).id",
    "nvmlComputeInstanceGetInfo_v2": "n.nvmlComputeInstanceGetInfo(ci(7)).id",
    CUT: "cut(19, 1)",
    COMPUTE: "compute(by_id(8))",
    "nvmlDeviceCreateGpuInstance": "cut(14)",
    UNCOMPUTE: "n.nvmlComputeInstanceDestroy(ci(8))",
    UNCUT: "n.nvmlGpuInstanceDestroy(by_id(8))",
}


def test_every_call_can_be_told_to_fail(node):
    """With the asked code, as often as asked; then it works again."""
    ask(node, "device(19, 0)")
    answers = ask(
        node,
        "import subprocess",
        f"tool = {str(node.build / 'fakegpu')!r}",
        "def told(symbol, call):",
        "    subprocess.run([tool, 'fail', symbol, '1', '999'], check=True)",
        "    return [error(eval, call, globals()), error(eval, call, globals())]",
        f"{{symbol: told(symbol, call) for symbol, call in {CALLS!r}.items()}}",
    )
    assert answers == {symbol: [999, 0] for symbol in CALLS}


def test_a_fault_can_wait_for_a_later_call(node):
    """`fail SYMBOL COUNT CODE SKIP`: here the third creation fails, and no other."""
    node.cli("fail", CUT, "1", str(INSUFFICIENT_RESOURCES), "2")
    assert ask(node, "[error(cut, 19, i) for i in range(4)]") == [0, 0, 23, 0]


@pytest.mark.parametrize(
    ("symbol", "moment", "left"),
    [
        (CUT, "kill-before", []),
        (CUT, "kill-inside", []),
        (CUT, "kill-after", [[7, 0]]),
        (COMPUTE, "kill-before", [[7, 0]]),
        (COMPUTE, "kill-inside", [[7, 0]]),
        (COMPUTE, "kill-after", [[7, 1]]),
    ],
)
def test_a_death_while_cutting_leaves_all_of_a_step_or_nothing(node, symbol, moment, left):
    """After kill -9 before, inside or after a creation the next process can go on at once."""
    node.cli("fail", symbol, "1", moment)
    assert run(node, "device(19, 0)").code == KILLED
    found = [[i["id"], len(i["devices"])] for i in node.ledger()[0]["mig"]["instances"]]
    assert found == left
    if not left:
        ask(node, "cut(19, 0)", "0")
    if left != [[7, 1]]:
        ask(node, "compute(by_id(7))", "0")
    assert ask(node, "[len(migs()), instances()]") == [1, [[7, 19, 0, 1]]]


@pytest.mark.parametrize(
    ("symbol", "moment", "left"),
    [
        (UNCOMPUTE, "kill-before", [[7, 1]]),
        (UNCOMPUTE, "kill-inside", [[7, 1]]),
        (UNCOMPUTE, "kill-after", [[7, 0]]),
        (UNCUT, "kill-before", [[7, 0]]),
        (UNCUT, "kill-inside", [[7, 0]]),
        (UNCUT, "kill-after", []),
    ],
)
def test_a_death_while_taking_away_leaves_all_of_a_step_or_nothing(node, symbol, moment, left):
    """The same of destructions."""
    ask(node, "device(19, 0)")
    node.cli("fail", symbol, "1", moment)
    away = "n.nvmlComputeInstanceDestroy(ci(7)); n.nvmlGpuInstanceDestroy(by_id(7))"
    assert run(node, away, "0").code == KILLED
    found = [[i["id"], len(i["devices"])] for i in node.ledger()[0]["mig"]["instances"]]
    assert found == left
    ask(node, "error(cut, 19, 1)")


def test_faults_do_not_touch_a_reader_that_may_not_write(node):
    """A daemon with a read-only driver root cannot count them down, and works on."""
    node.cli("fail", "nvmlDeviceGetUUID", "1", "999")
    # Root may write what is read-only by mode: a read-only mount is what a daemon has.
    script = (
        f"mount --bind {node.state} {node.state} && mount -o remount,bind,ro {node.state} && "
        'exec "$0" -c "import pynvml as n; n.nvmlInit();'
        ' print(n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByIndex(0)))"'
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, sys.executable],
        env=node.env,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == node.ledger()[0]["uuid"], done.stderr


def test_making_an_instance_takes_the_time_that_the_file_says(make_node):
    """`mig_ms` is the fake's own share of a creation; without it there is none to speak of."""
    text = (make_node("a100.txt").build.parent / "cards/a100.txt").read_text()
    node = make_node(text.replace("[driver]", "[driver]\nmig_ms = 50"))
    took = "(lambda t: (cut(19), t() - began)[1])(__import__('time').monotonic)"
    assert ask(node, "on()", "began = __import__('time').monotonic()", took) >= 0.05
