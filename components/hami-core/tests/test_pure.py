"""The pure C modules under the sanitizers: ledger, table, limits, array sizes, compute."""

import subprocess
import sys
from pathlib import Path

import pytest

from hamikit.region import Control, ControlDevice, write_control

TESTS = (
    "ledger",
    "ledger_kill",
    "ledger_tsan",
    "table",
    "table_tsan",
    "limit",
    "compute",
    "compute_tsan",
)


@pytest.fixture(scope="session")
def programs(built) -> Path:
    """The folder of the C tests."""
    tools = Path(sys.executable).parent
    command = [tools / "meson", "compile", "-C", built, *(f"test_{name}" for name in TESTS)]
    env = {"PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:]
    return built / "tests"


@pytest.mark.parametrize("name", TESTS)
def test_the_module_passes_its_own_test(programs, name):
    """Random operations against a model, kills at every step, threads under the race detector."""
    result = subprocess.run(
        [programs / f"test_{name}"], capture_output=True, text=True, check=False, timeout=100
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_c_reads_the_control_file_that_python_wrote(programs, tmp_path):
    """Both sides agree on values and checksum, after a change in place too."""
    path = tmp_path / "control"
    for limit in (3000 << 20, 2000 << 20):
        write_control(path, Control((ControlDevice("GPU-1", limit, 30),), priority=0))
        result = subprocess.run(
            [programs / "test_limit", path], capture_output=True, text=True, check=False
        )
        assert result.stdout == f"1 GPU-1 {limit} 30 0\n", result.stderr
