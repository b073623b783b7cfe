"""What pods that are gone left behind."""

import fcntl
import os
import struct

from plugin_kit import make_pod

from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.grant import ContainerGrant, PodGrant, Slice
from hami_device_plugin.hostfiles import HostFiles
from hami_device_plugin.pods import Pods
from hami_device_plugin.sweep import leftovers, sweep
from hamikit.informer import Change
from hamikit.region import LOCK_BASE, Control, ControlDevice
from hamikit.shape import Role

NOW = 1000.0
CONTROL = Control((ControlDevice("GPU-a", 1 << 20),))


def grant(uid, cdi_name):
    """A pod with one admitted container."""
    slices = (Slice("GPU-a", 1, 0),)
    return PodGrant(uid, "ns", uid, "", (ContainerGrant("c", Role.APP, slices, 1, cdi_name),))


def test_only_what_belongs_to_nobody_is_left_over():
    """Young things that we know nothing of may belong to a pod we are about to hear of."""
    grants = {"alive": grant("alive", "c1"), "gone": grant("gone", "c2")}
    on_disk = {"alive": 0.0, "gone": 90.0, "stranger": 0.0, "newcomer": 90.0}
    specs = {"c1": 0.0, "c2": 90.0, "c3": 0.0, "c4": 90.0}
    found = leftovers(grants, on_disk, specs, {"alive"}, old=50.0)
    assert found.pods == {"gone", "stranger"}
    assert found.specs == {"c2", "c3"}


class Host:
    """A node's files with two admitted pods, one of which is gone."""

    def __init__(self, node):
        self.node, self.files = node, HostFiles(node.vgpu)
        self.cdi = CdiFiles((node.static, node.cdi), node.cdi)
        self.pods = Pods(lambda: None, lambda *_: None)
        self.pods.complete = lambda: True
        self.files.prepare()
        self.admitted = {}
        for uid, name in (("alive", "c01234567"), ("gone", "c89abcdef")):
            self.admitted[uid] = grant(uid, name)
            self.files.save_grant(self.admitted[uid])
            self.files.put_limits(uid, "c", CONTROL)
            self.cdi.write(name, {"devices": [{"name": name, "containerEdits": {}}]})
        self.pods.apply(Change(None, make_pod("alive", "x")))

    def sweep(self):
        """Sweep as of now."""
        return sweep(self.admitted, self.pods, self.files, self.cdi, lambda: NOW)

    def left(self):
        """The pods that still have something."""
        specs = {"c01234567": "alive", "c89abcdef": "gone"}
        kept = self.files.known_pods().keys() | {specs[name] for name in self.node.specs()}
        assert kept == self.admitted.keys()
        return sorted(kept)


def test_a_pod_that_is_gone_leaves_nothing(node):
    """Specs, limits and grant go; those of the others stay."""
    host = Host(node)
    assert host.sweep()
    assert host.left() == ["alive"]
    assert not host.sweep()


def test_a_container_that_outlives_its_pod_keeps_everything(node):
    """A process of it holds its lock, until the kernel drops it."""
    host = Host(node)
    with (node.vgpu / "containers/gone_c/usage").open("r+b") as usage:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, LOCK_BASE + 7, 1, 0)
        fcntl.fcntl(usage, 37, lock)  # F_OFD_SETLK
        assert not host.sweep()
        assert host.left() == ["alive", "gone"]
    assert host.sweep()
    assert host.left() == ["alive"]


def test_one_odd_folder_does_not_keep_the_others(node):
    """Somebody put a folder where a file belongs; it goes too."""
    host = Host(node)
    usage = node.vgpu / "containers/gone_c/usage"
    usage.unlink()
    usage.mkdir()
    assert host.sweep()
    assert host.left() == ["alive"]


def test_nothing_is_swept_before_all_pods_are_known(node):
    """An empty view is no proof that a pod is gone."""
    host = Host(node)
    host.pods.complete = lambda: False
    assert not host.sweep()
    assert host.left() == ["alive", "gone"]


def test_an_ended_pod_is_swept_while_its_object_is_there(node):
    """Completed jobs keep their objects for long."""
    host = Host(node)
    pod = make_pod("alive", "x")
    host.pods.apply(Change(pod, type(pod)(pod.metadata, pod.spec, type(pod.status)("Succeeded"))))
    host.sweep()
    assert host.left() == []


def test_folders_of_hamis_own_plugin_are_left_alone(node):
    """They have the same names and no control file."""
    host = Host(node)
    folder = node.vgpu / "containers/other_c"
    folder.mkdir()
    (folder / "x.cache").touch()
    os.utime(folder, (0, 0))
    host.sweep()
    assert (folder / "x.cache").exists()


def test_halves_of_a_killed_plugin_are_removed(node):
    """Once they are old: a younger one may be somebody's who still writes."""
    host = Host(node)
    halves = [node.cdi / "hami.io-vgpu_c0.tmp", node.vgpu / "grants/u.tmp"]
    young = node.vgpu / "grants/v.tmp"
    for path in (*halves, young):
        path.touch()
    for path in halves:
        os.utime(path, (0, 0))
    host.sweep()
    assert [path.exists() for path in (*halves, young)] == [False, False, True]


def test_a_pod_that_is_known_is_swept_without_a_look_at_the_others(node, monkeypatch):
    """Hundreds that end at once took seconds, in which no container could start."""
    host = Host(node)
    looks = []
    plain = type(node.vgpu).glob
    monkeypatch.setattr(
        type(node.vgpu), "glob", lambda path, what: looks.append(what) or plain(path, what)
    )
    assert host.sweep()
    assert [what for what in looks if what.startswith("gone_")] == []
    monkeypatch.undo()
    assert host.left() == ["alive"]
