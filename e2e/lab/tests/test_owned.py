"""Only processes of the state folder are ended, and all of them."""

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from e2e.lab.owned import carries, end_all, owned
from e2e.lab.programs import OWNER, Programs

SLEEPER = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); p.wait()",
    *SLEEPER,
]


def started(argv, owner):
    """A running process of the state folder `owner`."""
    environment = Programs(owner=owner, log=owner / "log").environment()
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_ends_a_whole_family(tmp_path):
    """A process of ours and the child that it started are ended; a stranger lives on."""
    ours = started(PARENT, tmp_path)
    stranger = started(SLEEPER, tmp_path / "other")
    try:
        assert end_all(tmp_path) == 2
        assert ours.wait(10) != 0
        assert list(owned(tmp_path)) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        for process in (ours, stranger):
            process.stdout.close()


def test_nothing_to_end(tmp_path):
    """With no process of ours there is nothing to wait for."""
    assert end_all(tmp_path) == 0


def test_not_ourselves(tmp_path):
    """The process that asks is not among those it may end."""
    fake = tmp_path / "proc"
    for pid in (os.getpid(), 7, 8):
        (fake / str(pid)).mkdir(parents=True)
        text = f"A=b\0{OWNER}={tmp_path if pid != 8 else '/else'}\0"
        (fake / str(pid) / "environ").write_text(text)
    assert list(owned(tmp_path, fake)) == [7]


@given(st.text(alphabet="abc/", min_size=1), st.text(alphabet="abc/", min_size=1))
def test_whole_names(mine, other):
    """A folder whose name begins like ours is another's."""
    environ = f"X=1\0{OWNER}={other}\0Y=2".encode()
    assert carries(environ, Path(mine)) == (str(Path(mine)) == other)
