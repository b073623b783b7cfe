"""Brings every defect of the table back, one at a time, and shows that its test turns red."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
COMPONENT = HERE.parents[1]
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (?:`([\w-]+)`)? ?\| (.+) \|$", re.MULTILINE)
NEEDED = ("src", "include", "tools", "tests", "installer")
FILES = ("meson.build", "meson_options.txt", "libvgpu.map", ".clang-tidy")


@dataclass(frozen=True, slots=True)
class Row:
    """A defect; without a patch `test` is the reason."""

    number: int
    defect: str
    patch: str
    test: str


def table() -> list[Row]:
    """The rows of README.md."""
    rows = ROW.findall((HERE / "README.md").read_text())
    return [Row(int(n), defect, patch, test.strip("`")) for n, defect, patch, test in rows]


def copy_of(folder: Path) -> Path:
    """What the library is built from, to be spoilt."""
    for name in NEEDED:
        shutil.copytree(
            COMPONENT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in FILES:
        shutil.copy(COMPONENT / name, folder)
    return folder


def apply(folder: Path, patch: str, *, back: bool = False) -> str:
    """Applies a patch, or takes it back; what went wrong, or nothing."""
    with (HERE / f"{patch}.patch").open() as text:
        command = ["patch", "-p1", "-s", "-f", "--no-backup-if-mismatch", "-d", str(folder)]
        command += ["-R"] if back else []
        result = subprocess.run(command, stdin=text, capture_output=True, text=True, check=False)
    return result.stdout + result.stderr if result.returncode != 0 else ""


def outcome(row: Row, source: Path, builds: Path) -> str:
    """`red` if the test fails on the spoilt library, else what happened instead."""
    trouble = apply(source, row.patch)
    if trouble:
        return f"the patch does not apply: {trouble}"
    env = {
        **os.environ,
        "HAMI_CORE_SOURCE": str(source),
        "HAMI_CORE_BUILD": str(builds / "hami-core"),
        "HAMI_CORE_FAKE": str(builds / "fakegpu"),
    }
    test = f"{COMPONENT}/tests/{row.test}"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    apply(source, row.patch, back=True)
    last = result.stdout.strip().rsplit("\n", 1)[-1]
    return "red" if re.search(r"\b[1-9]\d* failed\b", last) else f"NOT RED: {last}"


def main() -> None:
    """run.py [PATCH...]: all, or those that are named."""
    rows = [r for r in table() if r.patch and (r.patch in sys.argv[1:] or not sys.argv[1:])]
    failures = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        source = copy_of(Path(name) / "source")
        for row in rows:
            start = time.monotonic()
            answer = outcome(row, source, Path(name))
            failures += answer != "red"
            took = time.monotonic() - start
            print(
                f"{row.number:3} {row.patch:30} {answer} ({took:.0f} s): {row.defect}", flush=True
            )
    for row in table():
        if not row.patch and not sys.argv[1:]:
            print(f"{row.number:3} {'-':30} {row.defect}: {row.test}")
    print(f"{len(rows) - failures} passed, {failures} failed")
    sys.exit(failures != 0)


if __name__ == "__main__":
    main()
