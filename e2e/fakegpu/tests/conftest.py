"""Builds the fake once and gives every test nodes of its own."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE.parent
MIB = 1 << 20
TOOLS = Path(sys.executable).parent

SMALL = """
[card]
model = Small
memory_mib = 64
context_mib = 4
count = 2
sm = 10
"""


class Guest:
    """A process under test: `ask` runs one command of guest.py in it."""

    def __init__(self, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "guest.py")],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, *command):
        """Sends a command and returns its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        """Kills the process at whatever instruction it is, and waits for its end."""
        self.process.kill()
        self.process.communicate()


@dataclass
class Node:
    """One fake node: a state file and the programs that look at it."""

    build: Path
    state: Path
    dev: str = "all"
    guests: list[Guest] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "FAKEGPU_STATE": str(self.state),
            "FAKEGPU_DEV": self.dev,
            "LD_LIBRARY_PATH": str(self.build),
        }

    def cli(self, *args: str) -> str:
        """Runs the fakegpu command, which must succeed."""
        return subprocess.run(
            [self.build / "fakegpu", *args],
            env=self.env,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def ledger(self) -> list[dict]:
        """What each process holds of each card."""
        return json.loads(self.cli("ledger"))["cards"]

    def used(self, card: int = 0) -> int:
        """Bytes in use on a card."""
        return self.ledger()[card]["used"]

    def probe(self, *args: str):
        """Runs cuprobe and returns its first line."""
        done = subprocess.run(
            [self.build / "cuprobe", *args],
            env=self.env,
            check=False,
            capture_output=True,
            text=True,
        )
        return json.loads(done.stdout.splitlines()[0])

    def smi(self, *args: str) -> str:
        """Runs the small nvidia-smi."""
        return subprocess.run(
            [self.build / "nvidia-smi", *args],
            env=self.env,
            check=False,
            capture_output=True,
            text=True,
        ).stdout

    def nvml(self, expression: str):
        """Evaluates an expression in a fresh process after pynvml's nvmlInit (`n` is pynvml)."""
        code = f"import json, pynvml as n; n.nvmlInit(); print(json.dumps({expression}))"
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.env, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def nvml_error(self, expression: str) -> int:
        """The NVML error that an expression raises, 0 for none; 'init' only initialises."""
        code = (
            "import pynvml as n\ntry:\n    n.nvmlInit()\n"
            f"    {expression}\nexcept n.NVMLError as e:\n    print(e.value)\nelse:\n    print(0)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.env, check=True, capture_output=True, text=True
        )
        return int(done.stdout)

    def guest(self, *, ready: bool = True, **env: str) -> Guest:
        """Starts a process; a ready one has a context on its first device."""
        guest = Guest({**self.env, **env})
        self.guests.append(guest)
        if ready:
            assert guest.ask("init") == 0
            assert guest.ask("retain") == 0
        return guest


@pytest.fixture(scope="session")
def build() -> Path:
    """The built fake; rebuilt when sources changed, one builder at a time."""
    folder = Path(os.environ.get("FAKEGPU_BUILD", SOURCE / "build"))
    folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "build.ninja").exists():
            setup = ["meson", "setup", str(folder), str(SOURCE)]
            subprocess.run(setup, check=True, env=env, capture_output=True)
        done = subprocess.run(
            ["ninja", "-C", str(folder)], check=False, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture
def make_node(build: Path, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Makes nodes from the text of a cards file, or from a shipped one by its name."""
    nodes: list[Node] = []

    def make(cards: str = SMALL, seed: str = "node", dev: str = "all") -> Node:
        path = SOURCE / "cards" / cards
        if "\n" in cards:
            path = tmp_path / f"cards{len(nodes)}.txt"
            path.write_text(cards)
        node = Node(build, tmp_path / f"state{len(nodes)}", dev)
        node.cli("init", "--cards", str(path), "--seed", seed)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        for guest in node.guests:
            guest.kill()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """A node with two small cards: 64 MiB, contexts of 4 MiB."""
    return make_node()
