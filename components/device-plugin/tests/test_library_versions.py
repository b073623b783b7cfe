"""Versions of the limiter that nothing uses are removed."""

import fcntl
import os

import pytest

from hami_device_plugin.grant import PodGrant
from hami_device_plugin.hostfiles import HostFiles
from hami_device_plugin.versions import GRACE_S, remove_unused
from hamikit import names

NOW = 10_000_000.0


@pytest.fixture
def vgpu(node):
    """Three versions delivered long ago, the last one current."""
    node.deliver("0.2.0")
    node.deliver("0.3.0-1a2b3c4d")
    for folder in node.vgpu.iterdir():
        os.utime(folder, (0, 0), follow_symlinks=False)
    return node.vgpu


def versions(vgpu):
    """What is there."""
    return {path.name for path in vgpu.iterdir() if path.name[0].isdigit()}


def test_what_nothing_uses_goes(vgpu):
    """The current one stays, and one that a container's next start needs."""
    assert remove_unused(vgpu, lambda: {"0.1.0"}, NOW) == ["0.2.0"]
    assert versions(vgpu) == {"0.1.0", "0.3.0-1a2b3c4d"}


def test_a_young_version_stays(vgpu):
    """The installer may be about to make it the current one."""
    os.utime(vgpu / "0.2.0", (NOW, NOW))
    assert remove_unused(vgpu, set, NOW) == ["0.1.0"]


def test_without_a_current_version_nobody_knows_what_is_old(vgpu):
    """Nothing is removed."""
    (vgpu / names.CURRENT_NAME).unlink()
    assert remove_unused(vgpu, set, NOW) == []


def test_the_installer_is_not_disturbed(vgpu):
    """It holds a lock on the folder while it works."""
    folder = os.open(vgpu, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert remove_unused(vgpu, set, NOW) == []
    os.close(folder)
    assert len(remove_unused(vgpu, set, NOW)) == 2


def test_what_is_no_version_of_ours_stays(vgpu):
    """Folders of other names, links, and what somebody put into a version's folder."""
    (vgpu / "containers").mkdir()
    (vgpu / "9link").symlink_to("containers")
    (vgpu / "0.1.0" / "notes").touch()
    assert remove_unused(vgpu, set, NOW) == ["0.2.0"]
    assert (vgpu / "containers").is_dir()
    assert (vgpu / "0.1.0" / "notes").exists()


def test_grants_on_disk_count(vgpu):
    """A plugin that is taking over keeps grants that this one has not heard of."""
    files = HostFiles(vgpu)
    files.prepare()
    files.save_grant(PodGrant("u1", "default", "p", "", (), library="0.1.0"))
    files.remove_unused_versions({"0.2.0"}, NOW)
    assert len(versions(vgpu)) == 3
    files.remove_unused_versions(set(), GRACE_S - 1)
    assert len(versions(vgpu)) == 3
    files.remove_unused_versions(set(), NOW)
    assert versions(vgpu) == {"0.1.0", "0.3.0-1a2b3c4d"}
