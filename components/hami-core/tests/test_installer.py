"""The installer: whole versions, never changed; `current` moved in one step; what is used stays."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def installer(built, tmp_path):
    """Runs the installer on a folder of its own; the library is a small stand-in."""
    (tmp_path / "libvgpu.so").write_bytes(b"library one")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [built / "hami-core-installer", "--to", tmp_path / "vgpu", *arguments]
        if "--uninstall" not in arguments:
            command += ["--from", tmp_path / "libvgpu.so"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    return run


def current(tmp_path: Path) -> Path:
    """The folder that `current` leads to."""
    return tmp_path / "vgpu" / os.readlink(tmp_path / "vgpu" / "current")


def test_a_version_is_delivered_whole_and_readable_by_all(installer, tmp_path):
    """Library and preload line, read-only, behind a relative link."""
    result = installer("--once")
    assert result.returncode == 0, result.stderr
    folder = current(tmp_path)
    assert folder.name == "0.1.0"
    assert (folder / "libvgpu.so").read_bytes() == b"library one"
    assert (folder / "ld.so.preload").read_text() == "/usr/local/vgpu/libvgpu.so\n"
    assert [(p.stat().st_mode & 0o777) for p in (folder, *sorted(folder.iterdir()))] == [
        0o755,
        0o444,
        0o444,
    ]


def test_a_second_run_changes_nothing(installer, tmp_path):
    """The same files with the same inodes: containers have them mounted."""
    installer("--once")
    before = (current(tmp_path) / "libvgpu.so").stat()
    assert "already there" in installer("--once").stdout
    assert (current(tmp_path) / "libvgpu.so").stat() == before


def test_another_build_of_a_version_goes_beside_it(installer, tmp_path):
    """What is there may be in use, so it is not touched; `current` moves on."""
    installer("--once")
    (tmp_path / "libvgpu.so").write_bytes(b"library two")
    installer("--once")
    assert (tmp_path / "vgpu/0.1.0/libvgpu.so").read_bytes() == b"library one"
    assert (current(tmp_path) / "libvgpu.so").read_bytes() == b"library two"


def test_a_killed_installer_leaves_old_or_new(built, tmp_path):
    """Killed at a random instant, `current` leads to a whole version or nowhere; a run repairs."""
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    content = os.urandom(4 << 20)
    (tmp_path / "libvgpu.so").write_bytes(content)
    command = [built / "hami-core-installer", "--once", "--to", tmp_path / "vgpu"]
    command += ["--from", tmp_path / "libvgpu.so"]
    for _ in range(40):
        shutil.rmtree(tmp_path / "vgpu", ignore_errors=True)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + dice.random() * 0.02
        while time.monotonic() < end and process.poll() is None:
            pass
        process.kill()
        process.wait()
        if (tmp_path / "vgpu/current").is_symlink():
            assert (current(tmp_path) / "libvgpu.so").read_bytes() == content, f"seed {seed}"
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        assert (current(tmp_path) / "libvgpu.so").read_bytes() == content, f"seed {seed}"
        assert sorted(p.name for p in (tmp_path / "vgpu").iterdir()) == ["0.1.0", "current"]


def test_it_waits_for_sigterm(built, tmp_path):
    """As a DaemonSet's container it stays until it is told to end, and then ends well."""
    (tmp_path / "libvgpu.so").write_bytes(b"library")
    command = [built / "hami-core-installer", "--to", tmp_path / "vgpu"]
    command += ["--from", tmp_path / "libvgpu.so"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "installed" in process.stdout.readline()
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_uninstall_keeps_what_a_process_has_loaded(built, installer, tmp_path):
    """`current` goes at once, a loaded version when nobody has it any more."""
    shutil.copy(built / "libvgpu.so", tmp_path / "libvgpu.so")
    installer("--once")
    library = current(tmp_path) / "libvgpu.so"
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(
        command,
        env={**os.environ, "LD_PRELOAD": str(library)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdout is not None
        user.stdout.readline()
        assert f"process {user.pid} has it loaded" in installer("--uninstall", "--once").stdout
        assert library.exists()
        assert not (tmp_path / "vgpu/current").exists()
        user.communicate(b"\n")
    assert "0.1.0 is removed" in installer("--uninstall", "--once").stdout
    assert list((tmp_path / "vgpu").iterdir()) == []


def test_uninstall_keeps_what_a_container_will_mount_again(installer, tmp_path):
    """A container that restarts mounts its version; its files say that it exists."""
    installer("--once")
    folder = tmp_path / "vgpu/containers/uid_app"
    folder.mkdir(parents=True)
    (folder / "control").touch()
    assert "1 containers may start" in installer("--uninstall", "--once").stdout
    (folder / "control").unlink()
    assert "removed" in installer("--uninstall", "--once").stdout


def test_what_somebody_took_away_comes_back(built, installer, tmp_path):
    """Without `current` no container starts on the node; the installer stays and looks again."""
    installer("--once")
    (tmp_path / "vgpu/current").unlink()
    command = [built / "hami-core-installer", "--to", tmp_path / "vgpu"]
    command += ["--from", tmp_path / "libvgpu.so"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "already there and current" in process.stdout.readline()
        (tmp_path / "vgpu/current").unlink()
        assert "already there and current" in process.stdout.readline()
        assert current(tmp_path).name == "0.1.0"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_uninstall_goes_on_until_nothing_has_to_stay(built, installer, tmp_path):
    """As a pod on each node it waits for the containers to go; then it waits to be told to end."""
    installer("--once")
    folder = tmp_path / "vgpu/containers/uid_app"
    folder.mkdir(parents=True)
    (folder / "control").touch()
    command = [built / "hami-core-installer", "--to", tmp_path / "vgpu", "--uninstall"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "1 containers may start" in process.stdout.readline()
        (folder / "control").unlink()
        said = iter(process.stdout.readline, "")
        assert any("0.1.0 is removed" in line for line in said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_a_folder_that_is_not_ours_is_left_alone(installer, tmp_path):
    """Only folders that hold a libvgpu.so are versions."""
    installer("--once")
    (tmp_path / "vgpu/other").mkdir()
    (tmp_path / "vgpu/other/file").touch()
    installer("--uninstall", "--once")
    assert (tmp_path / "vgpu/other/file").exists()


def test_a_library_that_is_not_there_is_named(installer, tmp_path):
    """The message says which file, and the exit status says that it failed."""
    (tmp_path / "libvgpu.so").unlink()
    result = installer("--once")
    assert result.returncode == 1
    assert "libvgpu.so" in result.stderr


def test_an_unknown_option_is_refused(installer):
    """With the list of those that are known."""
    result = installer("--twice")
    assert (result.returncode, "--uninstall" in result.stderr) == (2, True)
