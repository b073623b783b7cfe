"""The benchmark for a card runs, small, on the fake driver; its figures mean nothing there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(600)
def test_every_group_of_the_benchmark_runs(fake, tmp_path):
    """Names, groups A to F, the page and the last line; what must be exact is."""
    cards, state, page = tmp_path / "cards", tmp_path / "state", tmp_path / "page.md"
    cards.write_text("[card]\nmodel = Small\nmemory_mib = 8192\ncontext_mib = 4\nmodule_mib = 6\n")
    page.write_text("# Page\n\n## hami-core on a card, long ago\n\nold\n\n## Another\n\nstays\n")
    fake.run("fakegpu", "init", "--state", str(state), "--cards", str(cards))
    env = {
        **os.environ,
        "LD_LIBRARY_PATH": str(fake.folder),
        "FAKEGPU_STATE": str(state),
        "FAKEGPU_DEV": "all",
    }
    small = ["--quick", "--seconds", "0.2", "--repetitions", "2", "--write", page]
    command = [sys.executable, ROOT / "bench" / "gpu", *small]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    said = json.loads(result.stdout.splitlines()[-1])
    assert {goal["group"] for goal in said["goals"]} == set("ABCDEF")
    assert set(said["names"]) == {"same"}
    exact = [goal for goal in said["goals"] if goal["group"] in "BF"]
    assert [goal["name"] for goal in exact if not goal["met"]] == []
    text = page.read_text()
    assert "long ago" not in text
    assert "\n## Another\n\nstays\n" in text
    assert "| B | 512 MiB of linear: not granted | 0.00 MiB | <= 32 |" in text
