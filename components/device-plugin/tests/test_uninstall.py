"""What is taken off a node, and what stays for whom."""

import msgspec
import pytest
from plugin_kit import make_pod

from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.grant import ContainerGrant, PodGrant, Slice
from hami_device_plugin.hostfiles import HostFiles
from hami_device_plugin.uninstall import OURS, Uninstaller
from hamikit.objects import Metadata, Node
from hamikit.region import Control, ControlDevice
from hamikit.shape import Role

CONTROL = Control((ControlDevice("GPU-a", 1 << 20),))


class Cluster:
    """A node with our annotations and somebody else's, and one pod."""

    def __init__(self):
        self.annotations = {**dict.fromkeys(OURS, "x"), "theirs": "y"}
        self.pods = [make_pod("uid", "x")]

    def get(self, path, kind, query=None):
        """The node, or its device pods."""
        if path == "/api/v1/nodes/n":
            return Node(Metadata(annotations=self.annotations))
        assert query["fieldSelector"] == "spec.nodeName=n"
        return kind(items=self.pods)

    def patch(self, path, body):
        """Only keys that are to go."""
        for key, value in body["metadata"]["annotations"].items():
            assert value is None
            del self.annotations[key]
        return b""


@pytest.fixture
def host(node):
    """A node's files with one admitted pod."""
    files, cdi = HostFiles(node.vgpu), CdiFiles((node.static, node.cdi), node.cdi)
    files.prepare()
    container = ContainerGrant("c", Role.APP, (Slice("GPU-a", 1, 0),), 1, "c01234567")
    files.save_grant(PodGrant("uid", "ns", "p", "x", (container,)))
    files.put_limits("uid", "c", CONTROL)
    cdi.write("c01234567", {"devices": [{"name": "c01234567", "containerEdits": {}}]})
    return files, cdi


def test_what_a_running_pod_needs_stays_until_it_is_gone(node, host, tmp_path):
    """First the node stops offering cards; the pod's files go with the pod, the folders last."""
    sockets = tmp_path / "hami"
    sockets.mkdir()
    cluster = Cluster()
    remover = Uninstaller(cluster, "n", *host, sockets=sockets, now=lambda: 0.0)
    (line,) = remover.look()
    assert cluster.pods[0].key in line
    assert cluster.annotations == {"theirs": "y"}
    assert list(host[0].known_pods()) == ["uid"]
    assert list(node.specs()) == ["c01234567"]
    cluster.pods.clear()
    assert remover.look() == []
    assert list(node.specs()) == []
    assert not sockets.exists()
    assert not (node.vgpu / "containers").exists()
    assert not (node.vgpu / "grants").exists()


def test_a_pod_that_ended_needs_nothing(node, host, tmp_path):
    """Terminal pods stay in the API for long; their files need not."""
    cluster = Cluster()
    status = msgspec.structs.replace(cluster.pods[0].status, phase="Succeeded")
    cluster.pods = [msgspec.structs.replace(cluster.pods[0], status=status)]
    assert Uninstaller(cluster, "n", *host, sockets=tmp_path / "no", now=lambda: 0.0).look() == []


def test_others_files_and_their_folders_stay(node, host, tmp_path):
    """HAMi's own plugin keeps container folders in the same place."""
    cluster = Cluster()
    cluster.pods.clear()
    theirs = node.vgpu / "containers" / "other_c"
    theirs.mkdir()
    assert Uninstaller(cluster, "n", *host, sockets=tmp_path / "no", now=lambda: 0.0).look() == []
    assert theirs.exists()
