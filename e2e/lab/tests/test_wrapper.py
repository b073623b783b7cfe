"""The stand-in for runc takes out what this machine may not give, and nothing else."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.lab import config

pytestmark = pytest.mark.cluster

HUGE = 2**63 - 1


@pytest.fixture
def wrapper():
    """The program as the cluster that is up has it."""
    return config.load().bin / "runc-nosysres"


def permitted():
    """The capabilities of this process, as bits."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    raise AssertionError("no CapPrm in /proc/self/status")


def narrowed(names):
    """Those of CHOWN (bit 0) and SYS_RESOURCE (bit 24) that this process has."""
    bits = {"CAP_CHOWN": 0, "CAP_SYS_RESOURCE": 24}
    return [name for name in names if permitted() >> bits[name] & 1]


def process():
    """An OCI process that asks for a capability and a score that a machine may lack."""
    names = ["CAP_CHOWN", "CAP_SYS_RESOURCE"]
    return {
        "capabilities": {"bounding": names, "effective": names},
        "oomScoreAdj": -999,
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": HUGE}],
    }


def check(found):
    """Capabilities and score are what this process may give; a 64-bit limit is exact."""
    names = narrowed(["CAP_CHOWN", "CAP_SYS_RESOURCE"])
    assert found["capabilities"] == {"bounding": names, "effective": names}
    assert found["oomScoreAdj"] >= int(Path("/proc/self/oom_score_adj").read_text())
    assert found["rlimits"][0]["hard"] == HUGE


def run(wrapper, *args):
    """Runs the wrapper in front of `echo`; what runc would have been given."""
    environment = {**os.environ, "RUNC_NOSYSRES_REAL": shutil.which("echo")}
    done = subprocess.run(
        [wrapper, *args], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("verb", ["create", "run"])
def test_bundle(wrapper, tmp_path, verb):
    """A bundle's process is narrowed; every argument reaches runc."""
    (tmp_path / "config.json").write_text(json.dumps({"process": process(), "root": {"path": "r"}}))
    args = ["--root", "/r", verb, "--bundle", str(tmp_path), "name"]
    assert run(wrapper, *args) == args
    spec = json.loads((tmp_path / "config.json").read_text())
    check(spec["process"])
    assert spec["root"] == {"path": "r"}


def test_exec(wrapper, tmp_path):
    """`exec` gives a file that is itself the process."""
    file = tmp_path / "process.json"
    file.write_text(json.dumps(process()))
    run(wrapper, "exec", f"--process={file}", "name")
    check(json.loads(file.read_text()))


def test_other_verbs(wrapper, tmp_path):
    """Other verbs pass straight through, even next to a bundle that is no JSON."""
    (tmp_path / "config.json").write_text("no JSON")
    args = ["delete", "--bundle", str(tmp_path), "name"]
    assert run(wrapper, *args) == args
