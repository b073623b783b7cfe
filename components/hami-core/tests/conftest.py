"""Builds the library and the fake driver once, and gives every test containers of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hamikit.region import Control, ControlDevice, Usage, create_usage, read_usage, write_control

HERE = Path(__file__).parent
FAKE = HERE.parents[2] / "e2e" / "fakegpu"
# Another source than this checkout's, and folders that are built in again and again (make mutants).
COMPONENT = Path(os.environ.get("HAMI_CORE_SOURCE", HERE.parent))
BUILD = os.environ.get("HAMI_CORE_BUILD")
FAKE_BUILD = os.environ.get("HAMI_CORE_FAKE")
TOOLS = Path(sys.executable).parent
MIB = 1 << 20

CARDS = """
[card]
model = Small
memory_mib = 4096
context_mib = 4
module_mib = 6
count = 2
"""


def build(source: Path, folder: Path, *targets: str) -> Path:
    """Builds a meson project with the workspace's own tools."""
    env = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}"}
    meson = shutil.which("meson", path=env["PATH"])
    assert meson is not None, "meson is needed: uv sync"
    for command in ([meson, "setup", folder, source], [meson, "compile", "-C", folder, *targets]):
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    return folder


@dataclass
class Fake:
    """The built fake driver."""

    folder: Path

    def run(self, tool: str, *arguments: str) -> str:
        return subprocess.run(
            [self.folder / tool, *arguments], check=True, capture_output=True, text=True
        ).stdout


@dataclass
class Guest:
    """A process in a container: `ask` runs one command of guest.py in it."""

    process: subprocess.Popen[str]

    def ask(self, *command):
        self.tell(*command)
        return self.answer()

    def tell(self, *command) -> None:
        """Begins a command that may take a while."""
        assert self.process.stdin is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)

    def answer(self):
        """The answer to what was told."""
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        assert answer, f"the guest died: {self.process.wait()}"
        return json.loads(answer)

    def stop(self) -> None:
        """Stops it at whatever instruction it is, and returns once it stands."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), f"the guest ended: {status}"

    def kill(self) -> None:
        """Kills it at whatever instruction it is."""
        self.process.kill()
        self.process.wait()

    def end(self) -> str:
        """Lets it end; what it wrote to stderr."""
        return self.process.communicate()[1] or ""


@dataclass
class Container:
    """A folder as a container sees it, with the library beside its control and usage files."""

    folder: Path
    fake: Fake
    state: Path
    guests: list[Guest] = field(default_factory=list)

    @property
    def library(self) -> Path:
        return self.folder / "libvgpu.so"

    @property
    def usage(self) -> Usage:
        return read_usage(self.folder / "usage")

    @property
    def used(self) -> int:
        """Bytes charged on the first device."""
        return self.usage.devices[0].used_bytes

    def use_driver(self, cuda: str = "12.4", **modes: int) -> None:
        """Puts another driver under this container, and a limit on its card."""
        cards = self.folder / "cards"
        lines = "".join(f"{name} = {value}\n" for name, value in modes.items())
        cards.write_text(f"[driver]\ncuda = {cuda}\n{lines}{CARDS}")
        self.state = self.folder / "state"
        self.fake.run("fakegpu", "init", "--state", str(self.state), "--cards", str(cards))
        self.limit(1000)

    def limit(self, mib: int, *, cores: int = 0, **fields) -> None:
        """Puts limits on the first card in force."""
        card = ControlDevice(self.uuid(0), mib * MIB, cores)
        write_control(self.folder / "control", Control((card,), **fields))

    def virtual(self, mib: int, real_mib: int, **fields) -> None:
        """Puts a limit on the first card in force of which a part is real memory."""
        device = ControlDevice(self.uuid(0), mib * MIB, 0, real_mib * MIB)
        write_control(self.folder / "control", Control((device,), **fields))

    def limits(self, *mib: int, **fields) -> None:
        """Puts memory limits on the first cards in force."""
        devices = tuple(ControlDevice(self.uuid(card), m * MIB) for card, m in enumerate(mib))
        write_control(self.folder / "control", Control(devices, **fields))

    def ledger(self):
        return json.loads(self.fake.run("fakegpu", "ledger", "--state", str(self.state)))["cards"]

    def uuid(self, card: int) -> str:
        return self.ledger()[card]["uuid"]

    def is_in_driver(self, guest: Guest) -> bool:
        """Whether a stopped guest stands inside the fake driver's change of the first card.

        A real driver does this in the kernel, where nobody can be stopped.
        """
        return self.ledger()[0]["busy_with"] == guest.process.pid

    def data_bytes(self, card: int = 0) -> int:
        """What the card itself says that all processes hold, without their contexts.

        Managed memory counts wherever its pages are.
        """
        processes = self.ledger()[card]["processes"]
        return sum(p["bytes"] - p["context_bytes"] + p["host_bytes"] for p in processes)

    def env(self, **extra: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "LD_LIBRARY_PATH": str(self.fake.folder),
            "LD_PRELOAD": str(self.library),
            "FAKEGPU_STATE": str(self.state),
            "FAKEGPU_DEV": "all",
            **extra,
        }

    def run(self, *command: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.env(**extra), capture_output=True, text=True, check=False, timeout=60
        )

    def probe(self, *arguments: str, **extra: str):
        return json.loads(self.run(str(self.fake.folder / "cuprobe"), *arguments, **extra).stdout)

    def start(self, **extra: str) -> Guest:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "guest.py")],
            env=self.env(**extra),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        guest = Guest(process)
        self.guests.append(guest)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == "ready"
        return guest

    def ready(self, **extra: str) -> Guest:
        """A guest with a context on the first card."""
        guest = self.start(**extra)
        assert guest.ask("init") == 0
        return guest


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """The build folder of this component."""
    folder = Path(BUILD or tmp_path_factory.mktemp("hami-core"))
    return build(COMPONENT, folder, "vgpu", "hami-core-installer")


@pytest.fixture(scope="session")
def fake(tmp_path_factory) -> Fake:
    """The fake driver of e2e."""
    return Fake(build(FAKE, Path(FAKE_BUILD or tmp_path_factory.mktemp("fakegpu"))))


@pytest.fixture
def containers(built, fake, tmp_path) -> Iterator[Callable[..., Container]]:
    """Makes containers that share one fake node; `limit` in MiB, None for no control file."""
    (tmp_path / "cards").write_text(CARDS)
    state = tmp_path / "state"
    fake.run("fakegpu", "init", "--state", str(state), "--cards", str(tmp_path / "cards"))
    made: list[Container] = []

    def make(limit: int | None = 1000, **fields) -> Container:
        folder = tmp_path / f"container{len(made)}"
        folder.mkdir()
        shutil.copy(built / "libvgpu.so", folder)
        container = Container(folder, fake, state)
        made.append(container)
        if limit is not None:
            container.limit(limit, **fields)
            create_usage(folder / "usage")
        return container

    yield make
    for container in made:
        for guest in container.guests:
            guest.kill()
            for pipe in (guest.process.stdin, guest.process.stdout, guest.process.stderr):
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def container(containers) -> Container:
    """One container that may hold 1000 MiB of the first card."""
    return containers()
