"""Tenants of one card: the programs, built, and containers with limits to run them in."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hamikit.region import Control, ControlDevice, OverheadPolicy, create_usage, write_control

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "components" / "hami-core"
PROGRAMS = CORE / "tests" / "programs"
TOOLS = Path(sys.executable).parent
MIB = 1 << 20


def _call(*command: str | Path) -> None:
    env = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}"}
    env.pop("LD_PRELOAD", None)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")


def _driver() -> str:
    """Where the linker finds the driver: LD_LIBRARY_PATH, or the usual folders."""
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        if folder and (Path(folder) / "libcuda.so.1").exists():
            return f"-L{folder}"
    return "-L/usr/lib/x86_64-linux-gnu"


def build(folder: Path) -> Path:
    """The library and the programs, in a folder."""
    _call("meson", "setup", folder / "core", CORE, "-Dtests=false")
    _call("meson", "compile", "-C", folder / "core", "vgpu")
    shutil.copy(folder / "core" / "libvgpu.so", folder)
    link = [_driver(), "-l:libcuda.so.1", "-ldl"]
    include = ["-O2", f"-I{PROGRAMS}", f"-I{HERE}"]
    _call("gcc", *include, "-DLINKED", HERE / "work.c", *link, "-o", folder / "work")
    _call("gcc", *include, HERE / "names.c", "-ldl", "-o", folder / "names")
    for source in PROGRAMS.glob("*.c"):
        for way in ("LINKED", "BY_NAME", "BY_PROC_ADDRESS", "PER_THREAD"):
            options = ["-DLINKED", "-DPER_THREAD"] if way == "PER_THREAD" else [f"-D{way}"]
            _call("gcc", *include, *options, source, *link, "-o", folder / f"{source.stem}.{way}")
    return folder


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a container; 0 is none."""

    memory_mib: int = 0
    cores: int = 0
    overhead: OverheadPolicy = OverheadPolicy.REPORT


@dataclass
class Bench:
    """One card, the built programs, and what was asked for."""

    folder: Path
    seconds: float
    repetitions: int
    uuid: str = ""
    loops_per_ms: float = 0
    containers: int = field(default=0)

    def container(self, limits: Limits) -> Path:
        """A folder with the library, its control and its usage file."""
        self.containers += 1
        folder = self.folder / f"container{self.containers}"
        folder.mkdir()
        shutil.copy(self.folder / "libvgpu.so", folder)
        card = ControlDevice(self.uuid, limits.memory_mib * MIB, limits.cores)
        write_control(folder / "control", Control((card,), overhead_policy=limits.overhead))
        create_usage(folder / "usage")
        return folder

    def start(self, container: Path | None, program: str, *arguments: str) -> subprocess.Popen[str]:
        """A program in a container, or on the bare card."""
        env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        if container is not None:
            env["LD_PRELOAD"] = str(container / "libvgpu.so")
        return subprocess.Popen(
            [self.folder / program, *arguments],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, container: Path | None, *arguments: str) -> Any:
        """What `work` says at its end."""
        return answer(self.start(container, "work", *arguments))

    def rate(self, container: Path | None, kind: str, seconds: float | None = None) -> float:
        """Steps a second of one kind of work."""
        return per_second(self.run(container, *self.work(kind, seconds or self.seconds)))

    def work(self, kind: str, seconds: float, live: int = 1000) -> tuple[str, ...]:
        """Arguments of `work`: steps of about 5 ms of computing, of 500 ms for W12."""
        size = {"W2": live, "W12": 500 * self.loops_per_ms}.get(kind, 5 * self.loops_per_ms)
        return "rate", kind, str(seconds), str(max(1, int(size)))


def answer(process: subprocess.Popen[str]) -> Any:
    """The line of JSON that it ends with."""
    text, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{process.args!r}: status {process.returncode}: {text}")
    return json.loads(text)


def per_second(said: Any) -> float:
    """Of what `work rate` says."""
    return float(said["steps"]) / float(said["seconds"])
