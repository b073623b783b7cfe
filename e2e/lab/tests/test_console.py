"""One line a step, and the end of the log where one fails."""

import io

import pytest

from e2e.lab.console import Console, tail
from e2e.lab.errors import CommandError
from e2e.lab.programs import Programs


def console():
    """A console whose clock goes on by 3 s a look, and what it prints."""
    times = iter(range(0, 100, 3))
    out = io.StringIO()
    return Console(out, now=lambda: next(times)), out


def test_step():
    """A step that went well is one line with its time."""
    screen, out = console()
    with screen.step("Docker"):
        pass
    assert out.getvalue() == "    ok  Docker                                3.0 s\n"


def test_long_step():
    """A long step says first what it waits for."""
    screen, out = console()
    with screen.step("Kubernetes", "compiling, about 9 minutes"):
        assert out.getvalue() == "   ...  Kubernetes: compiling, about 9 minutes\n"


def test_failed_step(tmp_path):
    """A failing step shows the end of its own log and where the log is, once."""
    screen, out = console()
    log = tmp_path / "log"
    programs = Programs(owner=tmp_path, log=log, contained=False)
    with pytest.raises(CommandError) as failed, screen.step("Docker"):
        programs.run("sh", "-c", "for n in $(seq 50); do echo line $n; done; exit 3")
    screen.show(failed.value)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("FAILED  Docker")
    assert lines[1:21] == [f"line {n}" for n in range(31, 51)]
    assert lines[21:] == [f"{failed.value}; the whole log: {log}"]


def test_absent_program(tmp_path):
    """A program that is not installed fails like one that cannot do its work."""
    programs = Programs(owner=tmp_path, log=tmp_path / "log", contained=False)
    with pytest.raises(CommandError, match="ended with 127"):
        programs.run("no-such-program")
    assert "no-such-program" in (tmp_path / "log").read_text()


def test_no_log(tmp_path):
    """A log that is not there does not hide the failure."""
    assert tail(tmp_path / "log").startswith("(no log")
