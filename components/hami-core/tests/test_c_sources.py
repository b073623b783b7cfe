"""The C sources keep to the house's measure: clang-tidy, and the lengths of files and wrappers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

COMPONENT = Path(__file__).parents[1]
SOURCES = sorted([*COMPONENT.glob("src/*.[ch]"), *COMPONENT.glob("installer/*.[ch]")])


@pytest.mark.timeout(600)  # the analyzer takes its time on a loaded machine
@pytest.mark.parametrize("name", [path.name for path in SOURCES if path.suffix == ".c"])
def test_clang_tidy_finds_nothing(built, name):
    """The checks of .clang-tidy, in every file of the build; functions of 60 lines at most."""
    path = next(path for path in SOURCES if path.name == name)
    command = [Path(sys.executable).parent / "clang-tidy", "--quiet", "-p", built, path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_files_and_wrappers_are_short():
    """A file has at most 500 lines, a wrapper at most 20."""
    for path in SOURCES:
        text = path.read_text()
        assert text.count("\n") <= 500, path
        for wrapper in re.findall(
            r"^(?:CUresult|nvmlReturn_t) (?:cu|nvml).*?^}", text, re.MULTILINE | re.DOTALL
        ):
            assert wrapper.count("\n") < 20, wrapper
