"""Parsers and symbol look-ups under the sanitizers and the coverage-guided fuzzer of fuzz/."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)  # the targets are built first

RUNS = os.environ.get("FUZZ_RUNS", "20000")
SEED = os.environ.get("SEED", "20260101")
# What one run costs beside the cheapest: a control file that is nearly right is read 64 times over.
TARGETS = {"control": 50, "environment": 1, "usage": 4, "symbols": 8}


@pytest.fixture(scope="session")
def fuzzers(built) -> Path:
    """The folder of the fuzz targets."""
    tools = Path(sys.executable).parent
    command = [tools / "meson", "compile", "-C", built, *(f"fuzz_{name}" for name in TARGETS)]
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:]
    return built / "tests" / "fuzz"


def run(program: Path, runs: int, **env: str) -> subprocess.CompletedProcess[str]:
    """A target with so many inputs."""
    command = [program, str(runs), SEED]
    return subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_property(fuzzers, name):
    """Control file, variables, usage file and look-ups; FUZZ_RUNS= and SEED= for other runs."""
    result = run(fuzzers / f"fuzz_{name}", int(RUNS) // TARGETS[name])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "inputs kept" in result.stdout


@pytest.mark.parametrize("lacks", ["1", "2", "3"])
def test_look_ups_hold_on_older_drivers(fuzzers, lacks):
    """That lack all of the table, or every second or third symbol of it."""
    result = run(fuzzers / "fuzz_symbols", int(RUNS) // TARGETS["symbols"], FUZZ_LACKS=lacks)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_engine_finds_what_is_hidden(tmp_path):
    """A target that fails behind four nested comparisons: only an input that grew reaches it."""
    fuzz = Path(__file__).parent / "fuzz"
    (tmp_path / "target.c").write_text(
        r"""
#include "fuzz.h"
#include <stdlib.h>
const char *const fuzz_words[] = {NULL};
size_t fuzz_example(unsigned i, uint8_t *into) { into[0] = 0; return i == 0; }
int LLVMFuzzerTestOneInput(const uint8_t *d, size_t n) {
    if (n > 3 && d[0] == 'h')
        if (d[1] == 'a')
            if (d[2] == 'm')
                if (d[3] == 'i')
                    abort();
    return 0;
}
"""
    )
    command = ["gcc", "-O0", "-fsanitize-coverage=trace-pc", "-fsanitize=address", f"-I{fuzz}"]
    program = tmp_path / "target"
    subprocess.run([*command, tmp_path / "target.c", fuzz / "engine.c", "-o", program], check=True)
    result = run(program, 3_000_000)
    assert result.returncode == 1
    assert "68616d69" in result.stderr.replace("\n", "")
