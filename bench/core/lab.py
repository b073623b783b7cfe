"""What the programs run on: the library and the fake driver, built once; nodes and containers."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hamikit.region import Control, ControlDevice, create_usage, write_control

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOOLS = Path(sys.executable).parent
CARD_MIB = 81920
LIMIT_MIB = 40000


def _build(source: Path, folder: Path, *targets: str) -> Path:
    env = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}"}
    for command in (
        ["meson", "setup", folder, source],
        ["meson", "compile", "-C", folder, *targets],
    ):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{source} cannot be built:\n{done.stdout}{done.stderr}")
    return folder


@dataclass(frozen=True, slots=True)
class Lab:
    """Where everything was built."""

    folder: Path

    @property
    def fake(self) -> Path:
        """The folder of the fake driver."""
        return self.folder / "fake"

    @property
    def library(self) -> Path:
        """libvgpu.so."""
        return self.folder / "core" / "libvgpu.so"

    @property
    def load(self) -> Path:
        """The tenant of the component's tests."""
        return self.folder / "core" / "tests" / "load"

    def program(self, name: str) -> Path:
        """One of this folder's C programs."""
        return self.folder / "bin" / name


def build(folder: Path) -> Lab:
    """Builds all of it."""
    _build(ROOT / "components" / "hami-core", folder / "core", "vgpu", "load")
    _build(ROOT / "e2e" / "fakegpu", folder / "fake")
    (folder / "bin").mkdir()
    for name in ("cost", "race"):
        command = [
            "cc",
            "-O2",
            "-o",
            folder / "bin" / name,
            HERE / f"{name}.c",
            f"-I{ROOT / 'components' / 'hami-core' / 'tests'}",
            "-ldl",
            "-lpthread",
        ]
        subprocess.run(command, check=True)
    return Lab(folder)


@dataclass(slots=True)
class Container:
    """A tenant's folder and surroundings; without limits it has no library: native."""

    node: "Node"
    card: int
    folder: Path | None = None

    def limit(self, cores: int, mib: int = LIMIT_MIB, **fields: Any) -> None:
        """Puts limits in force."""
        assert self.folder is not None
        device = ControlDevice(self.node.uuids[self.card], mib << 20, cores)
        write_control(self.folder / "control", Control((device,), **fields))

    @property
    def env(self) -> dict[str, str]:
        """The environment of its programs."""
        env = {
            "PATH": os.environ["PATH"],
            "LD_LIBRARY_PATH": str(self.node.lab.fake),
            "FAKEGPU_STATE": str(self.node.state),
            "FAKEGPU_DEV": "all",
            "CUDA_VISIBLE_DEVICES": str(self.card),
        }
        return (
            env if self.folder is None else {**env, "LD_PRELOAD": str(self.folder / "libvgpu.so")}
        )

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        """Starts a program in it."""
        return subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, text=True)

    def run(self, *command: str | Path) -> Any:
        """What a program prints, as JSON."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr}")
        return json.loads(done.stdout)


@dataclass(slots=True)
class Node:
    """A node of the fake driver with cards that behave as asked."""

    lab: Lab
    folder: Path
    cards: int = 1
    modes: dict[str, int] = field(default_factory=dict)
    uuids: list[str] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        """Makes the state."""
        self.folder.mkdir(parents=True)
        modes = "".join(f"{name} = {value}\n" for name, value in self.modes.items())
        card = f"model = Bench\nmemory_mib = {CARD_MIB}\ncontext_mib = 4\ncount = {self.cards}\n"
        (self.folder / "cards").write_text(f"[driver]\n{modes}[card]\nsm = 132\n{card}")
        self.fakegpu("init", "--cards", str(self.folder / "cards"))
        self.uuids = [card["uuid"] for card in json.loads(self.fakegpu("ledger"))["cards"]]

    @property
    def state(self) -> Path:
        """The state file."""
        return self.folder / "state"

    def fakegpu(self, verb: str, *arguments: str) -> str:
        """What the tool prints."""
        command = [self.lab.fake / "fakegpu", verb, "--state", self.state, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def watch(self, card: int, every_ms: int, count: int) -> subprocess.Popen[str]:
        """Begins to print how busy each process keeps a card."""
        arguments = ("--state", str(self.state), str(card), str(every_ms), str(count))
        command = [self.lab.fake / "fakegpu", "busy", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def native(self, card: int = 0) -> Container:
        """A tenant without the library."""
        return Container(self, card)

    def container(self, cores: int = 0, card: int = 0, mib: int = LIMIT_MIB) -> Container:
        """A tenant with limits; without cores only memory is limited."""
        self.made += 1
        folder = self.folder / f"container{self.made}"
        folder.mkdir()
        shutil.copy(self.lab.library, folder)
        create_usage(folder / "usage")
        container = Container(self, card, folder)
        container.limit(cores, mib)
        return container
