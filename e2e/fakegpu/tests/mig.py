"""Short words for what pynvml asks of MIG, run in processes of their own."""

import json
import subprocess
import sys

PRELUDE = """
import ctypes, json, os, sys
import pynvml as n

n.nvmlInit()


def card(index=0):
    return n.nvmlDeviceGetHandleByIndex(index)


def profile(number, index=0):
    return n.nvmlDeviceGetGpuInstanceProfileInfo(card(index), number)


def places(profile_id, index=0):
    ask, count = n.nvmlDeviceGetGpuInstancePossiblePlacements, ctypes.c_uint()
    ask(card(index), profile_id, None, ctypes.byref(count))
    found = (n.c_nvmlGpuInstancePlacement_t * count.value)()
    ask(card(index), profile_id, found, ctypes.byref(count))
    return [(p.start, p.size) for p in found]


def cut(profile_id, start=None, size=1, index=0):
    if start is None:
        return n.nvmlDeviceCreateGpuInstance(card(index), profile_id)
    place = n.c_nvmlGpuInstancePlacement_t(start, size)
    return n.nvmlDeviceCreateGpuInstanceWithPlacement(card(index), profile_id, ctypes.byref(place))


def compute(gi, number=0):
    info = n.nvmlGpuInstanceGetComputeInstanceProfileInfo(gi, number, 0)
    return n.nvmlGpuInstanceCreateComputeInstance(gi, info.id)


def device(profile_id, start=None, size=1, number=0):
    gi = cut(profile_id, start, size)
    compute(gi, number)
    return n.nvmlGpuInstanceGetInfo(gi).id


def migs(index=0):
    found = []
    for i in range(n.nvmlDeviceGetMaxMigDeviceCount(card(index))):
        try:
            found.append(n.nvmlDeviceGetMigDeviceHandleByIndex(card(index), i))
        except n.NVMLError_NotFound:
            break
    return found


def instances(index=0):
    found = []
    for number in range(n.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            info = profile(number, index)
        except n.NVMLError_NotSupported:
            continue
        handles = (n.c_nvmlGpuInstance_t * info.instanceCount)()
        count = ctypes.c_uint(info.instanceCount)
        n.nvmlDeviceGetGpuInstances(card(index), info.id, handles, ctypes.byref(count))
        for gi in list(handles)[: count.value]:
            told = n.nvmlGpuInstanceGetInfo(gi)
            found.append([told.id, told.profileId, told.placement.start, told.placement.size])
    return sorted(found)


def by_id(gi, index=0):
    return n.nvmlDeviceGetGpuInstanceById(card(index), gi)


def ci(gi, ci_id=0):
    return n.nvmlGpuInstanceGetComputeInstanceById(by_id(gi), ci_id)


def on(index=0):
    return n.nvmlDeviceSetMigMode(card(index), 1)


def off(index=0):
    return n.nvmlDeviceSetMigMode(card(index), 0)


def error(call, *args):
    try:
        call(*args)
    except n.NVMLError as e:
        return e.value
    return 0
"""

FAILED = "the process that asked NVML failed"


class Result:
    """How a process that asked NVML ended."""

    def __init__(self, done):
        self.code, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr

    @property
    def value(self):
        """The value of the last expression."""
        assert self.code == 0, f"{FAILED} ({self.code}): {self.stderr}"
        return json.loads(self.stdout)


def run(node, *lines):
    """Runs statements in a new process; the last is an expression and told as JSON."""
    *before, last = lines
    program = "\n".join([PRELUDE, *before, f"print(json.dumps({last}))"])
    return Result(
        subprocess.run(
            [sys.executable, "-c", program],
            env=node.env,
            check=False,
            capture_output=True,
            text=True,
        )
    )


def ask(node, *lines):
    """The same, where the process must end well."""
    return run(node, *lines).value


def holder(node):
    """A process that has NVML open until it is told to end."""
    code = "import pynvml as n; n.nvmlInit(); print('open', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=node.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process
