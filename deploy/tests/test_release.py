"""A component's release changes its own version in every place, and nothing else."""

import datetime as dt
import subprocess
import sys

import pytest

from deploy.release import PINS, ROOT, ReleaseError, plan, show

TODAY = dt.date(2026, 11, 23)
COMPONENTS = ("webhook", "extender", "device-plugin", "monitor", "mig-manager", "hami-core")


def read(path):
    """A file of the repository; every changelog has something to tell."""
    text = (ROOT / path).read_text()
    if path.endswith("CHANGELOG.md") and "## Unreleased" not in text:
        return text.replace("\n## ", "\n## Unreleased\n\n- Something.\n\n## ", 1)
    return text


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_place_has_the_new_version(component):
    """Version, label, pin, lock (of Python), a dated heading; one line each."""
    changed = plan(component, "99.0.0", read, TODAY)
    patch = show(changed, read)
    added = [line for line in patch.splitlines() if line.startswith("+") and "99.0.0" in line]
    assert len(added) == len(changed)
    assert len([line for line in patch.splitlines() if line.startswith("-")]) == 2 * len(changed)
    assert f"components/{component}/CHANGELOG.md" in changed
    assert "## 99.0.0 (2026-11-23)" in changed[f"components/{component}/CHANGELOG.md"]
    pins = changed[PINS]
    assert pins.count("99.0.0") == 1
    assert ("uv.lock" in changed) is (component != "hami-core")


@pytest.mark.parametrize(
    ("component", "version", "says"),
    [
        ("webhook", "2", "is no version"),
        ("webhook", "0.0.1", "not newer"),
        ("webhok", "99.0.0", "no image hami-webhok"),
    ],
)
def test_what_is_no_release(component, version, says):
    """Nothing is written, and the text says why."""
    with pytest.raises(ReleaseError, match=says):
        plan(component, version, read, TODAY)


def test_a_release_tells_what_changed():
    """An empty changelog helps nobody who decides whether to upgrade."""

    def untold(path):
        return read(path).split("## Unreleased")[0] if path.endswith(".md") else read(path)

    with pytest.raises(ReleaseError, match="say what changed"):
        plan("webhook", "99.0.0", untold, TODAY)


def test_a_dry_run_shows_and_writes_nothing():
    """As `make release DRY=1` does it."""
    command = [sys.executable, "-m", "deploy.release", "webhook", "99.0.0", "--dry-run"]
    before = (ROOT / PINS).read_text()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = "## Unreleased" in (ROOT / "components/webhook/CHANGELOG.md").read_text()
    assert (done.returncode, "git tag webhook/v99.0.0" in done.stdout) == (
        (0, True) if told else (2, False)
    )
    assert (ROOT / PINS).read_text() == before
