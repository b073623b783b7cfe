"""Lets the tests import their world, and builds the simulated driver."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hamikit.gpu import Nvml

sys.path.insert(0, str(Path(__file__).parent))

FAKE = Path(__file__).parents[3] / "e2e/fakegpu"
CARDS = ("a100.txt", "rtx-pro-6000.txt")


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


@pytest.fixture(scope="session")
def divisible(fake, tmp_path_factory):
    """A node with A100s and RTX PRO 6000s. NVML keeps the node that a process has opened first."""
    place = tmp_path_factory.mktemp("node")
    sections = [(FAKE / "cards" / name).read_text().partition("[card]") for name in CARDS]
    text = sections[0][0] + "".join(f"[card]{rest}\n" for _, _, rest in sections)
    (place / "cards.txt").write_text(text)
    libraries = place / "driver/usr/lib64"
    libraries.mkdir(parents=True)
    (libraries / "libnvidia-ml.so.1").symlink_to(fake / "libnvidia-ml.so.1")
    command = [fake / "fakegpu", "init", "--state", place / "state"]
    subprocess.run([*command, "--cards", place / "cards.txt"], check=True, capture_output=True)
    return place


@pytest.fixture(scope="module")
def driver(fake, divisible):
    """That node's driver: an NVML client, its root, and its own command."""
    state = str(divisible / "state")

    def command(verb, *words):
        call = [fake / "fakegpu", verb, "--state", state, *words]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKEGPU_STATE", state)
        patch.setenv("FAKEGPU_DEV", "all")
        root = divisible / "driver"
        nvml = Nvml(root)
        yield SimpleNamespace(nvml=nvml, root=root, command=command)
        nvml.close()
