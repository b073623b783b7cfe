"""A cluster test is repeated once, and what it said the first time is not lost."""

import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[3]
OPTIONS = ("-q", "--reruns", "1", "--max-suite-reruns", "2", "-p", "e2e.again")
FLICKERS = """
import pytest
seen = set()

@pytest.mark.parametrize("name", {names})
def test_flickers(name, record_property):
    print(f"what {{name}} printed")
    assert name in seen or seen.add(name), f"what {{name}} missed"

def test_never_passes():
    assert {passes}
"""


@pytest.fixture
def outcomes(pytester, monkeypatch):
    """Runs tests of which those named flicker."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(*names, passes):
        pytester.makepyfile(FLICKERS.format(names=names, passes=passes))
        return pytester.run(sys.executable, "-m", "pytest", *OPTIONS)

    return run


def test_what_flickered_is_told(outcomes):
    """Green, with the first failure's words and what it printed."""
    result = outcomes("one", passes=True)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=2)
    told = result.stdout.str().partition("Repeated:")[2]
    assert "test_flickers[one] (call)" in told
    assert "AssertionError: what one missed" in told
    assert "what one printed" in told


def test_what_fails_twice_is_red(outcomes):
    """A repetition changes nothing about a true failure."""
    result = outcomes("one", passes=False)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1)


def test_much_that_flickers_is_red(outcomes):
    """Two repetitions in a whole run, no more."""
    result = outcomes("one", "two", "three", passes=True)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=3, failed=1)
    assert "AssertionError: what three missed" in result.stdout.str()
