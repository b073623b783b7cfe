"""Lets the tests import their world, and builds the simulated driver."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

FAKE = Path(__file__).parents[3] / "e2e/fakegpu"


@pytest.fixture(scope="session")
def fake():
    """The simulated driver, built once; the folder with its libraries and its command."""
    folder = Path(os.environ.get("FAKEGPU_BUILD", FAKE / "build"))
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (["meson", "setup", str(folder), str(FAKE)], ["ninja", "-C", str(folder)]):
            if command[0] == "meson" and (folder / "build.ninja").exists():
                continue
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
    return folder
