"""What the library must not do on fast paths, counted rather than timed; times: make bench-core."""

import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "traced.c"
CALLS = 1000


@pytest.mark.parametrize("kind", ["alloc", "info", "launch"])
def test_fast_paths_add_no_system_call(container, tmp_path, kind):
    """A thousand calls make as many as without us, but for a few when something grows."""
    binary = str(tmp_path / "traced")
    driver = [f"-L{container.fake.folder}", "-l:libcuda.so.1", "-ldl"]
    command = ["gcc", "-O1", "-Wall", "-Werror", "-DLINKED", PROGRAM, *driver, "-o", binary]
    subprocess.run(command, check=True)
    ours = int(container.run(binary, kind).stdout)
    native = int(container.run(binary, kind, LD_PRELOAD="").stdout)
    assert ours - native < CALLS // 10
