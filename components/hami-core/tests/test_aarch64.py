"""The library built for aarch64, and looked at: there is no such machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import gen_hooks
import pytest

COMPONENT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent
BRANCH_TO_X16, BTI_C = (0xD61F0200).to_bytes(4, "little"), (0xD503245F).to_bytes(4, "little")
TARGET = "aarch64-linux-gnu.2.17"
# The compiler makes its stand-in for glibc once, which takes half a minute.
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hami-lab" / "zig"

pytestmark = pytest.mark.timeout(900)

CROSS = """
[binaries]
c = ['{python}', '-m', 'ziglang', 'cc', '-target', '{target}']
ar = ['{python}', '-m', 'ziglang', 'ar']
strip = 'true'
[host_machine]
system = 'linux'
cpu_family = 'aarch64'
cpu = 'aarch64'
endian = 'little'
"""


ENV = {
    **os.environ,
    "PATH": f"{TOOLS}:{os.environ['PATH']}",
    "ZIG_GLOBAL_CACHE_DIR": str(CACHE),
    "ZIG_LOCAL_CACHE_DIR": str(CACHE),
}


def run(*command: str | Path) -> str:
    """Runs a tool; what it said if it failed."""
    result = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    return result.stdout[-4000:] + result.stderr[-2000:] if result.returncode != 0 else ""


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """What containers of aarch64 nodes get."""
    folder = tmp_path_factory.mktemp("aarch64")
    cross = folder / "cross.ini"
    cross.write_text(CROSS.format(python=sys.executable, target=TARGET))
    options = ["--cross-file", cross, "-Dtests=false"]
    assert run(TOOLS / "meson", "setup", folder / "build", COMPONENT, *options) == ""
    assert run(TOOLS / "meson", "compile", "-C", folder / "build", "vgpu") == ""
    return folder / "build" / "libvgpu.so"


def readelf(path: Path, *options: str) -> str:
    """What binutils, for whatever machine, says of a file."""
    command = ["readelf", "-W", *options, path]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_it_is_a_library_of_that_machine(library):
    """That it could be compiled shows that the layouts' offsets hold there: they are asserted."""
    header = readelf(library, "-h")
    assert re.search(r"Machine:\s+AArch64", header)
    assert re.search(r"Type:\s+DYN", header)


@pytest.mark.parametrize("source", ["installer.c", "remove.c"])
def test_the_installer_compiles_for_that_machine(library, tmp_path, source):
    """Compiled only: with which libc it is linked is the image's business."""
    object_file = tmp_path / "object.o"
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", TARGET, "-Wall", "-Wextra", "-Werror"]
    options = ["-std=gnu11", f"-I{library.parent}", "-c", COMPONENT / "installer" / source]
    assert run(*zig, *options, "-o", object_file) == ""
    assert re.search(r"Machine:\s+AArch64", readelf(object_file, "-h"))


def test_the_exports_are_the_same(library):
    """The table and two loader functions."""
    rows = gen_hooks.parse((COMPONENT / "src" / "hooks.def").read_text())
    hooked = {row.symbol for row in rows if isinstance(row, gen_hooks.Hook)}
    lines = [line.split() for line in readelf(library, "--dyn-syms").splitlines()]
    defined = {line[7] for line in lines if len(line) == 8 and line[6].isdigit()}
    assert defined == hooked | {"dlsym", "dlvsym"}


def test_it_runs_on_the_first_glibc_of_that_machine(library):
    """Which is 2.17; no other library is needed."""
    assert set(re.findall(r"GLIBC_([\d.]+)", readelf(library, "-V"))) == {"2.17"}
    needed = re.findall(r"NEEDED.*\[(.*)\]", readelf(library, "-d"))
    assert needed == ["libc.so.6"]


@pytest.mark.parametrize("name", ["dlsym", "dlvsym"])
def test_a_look_up_of_none_of_ours_leaves_by_a_jump(library, name):
    """Glibc sees the caller's own frame; and the entry may be the target of an indirect branch."""
    line = next(
        line.split()
        for line in readelf(library, "--dyn-syms").splitlines()
        if line.endswith(f" {name}")
    )
    text = re.search(r"\.text\s+PROGBITS\s+(\w+)\s+(\w+)", readelf(library, "-S"))
    assert text is not None
    start = int(line[1], 16) - int(text[1], 16) + int(text[2], 16)
    code = library.read_bytes()[start : start + int(line[2])]
    assert code.startswith(BTI_C)
    assert BRANCH_TO_X16 in code
