"""Removing the product and installing it anew, as docs/operations.md says.

Running pods keep their slices, and nothing is left once they are gone. Runs last (by its name among
the cluster tests).
"""

import re
import subprocess

import pytest

from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of
from e2e.procedures import follow
from e2e.product import unannounced

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
NODES = ("hami-worker", "hami-control-plane")
LEFT = "ls -d /usr/local/vgpu/* /var/run/cdi/hami* /var/lib/kubelet/device-plugins/hami 2>/dev/null"


@pytest.fixture
def removed(kube):
    """The product off the cluster, with what kubectl said, and on it again afterwards."""
    yield follow(kube, "remove")
    follow(kube, "clean-end")
    for node in kube.nodes:
        follow(kube, "label", NODE=node)
    follow(kube, "install")
    wait_until(lambda: unannounced(kube), 120)


def left(kube):
    """What of ours is on the nodes."""
    return [path for node in NODES for path in kube.node(node, "sh", "-c", f"{LEFT}; true").split()]


def test_running_pods_keep_their_slices_and_then_nothing_is_left(kube, namespace, request):
    """The remover says which pod keeps what; when the pod is gone, the nodes are as before."""
    kube.create(pod("stays", namespace, container("c", slice_of(memory=3000))))
    kube.wait_running(namespace, "stays")
    warnings = request.getfixturevalue("removed")
    for stays in ("/usr/local/vgpu", "/var/run/cdi/hami.io-vgpu_*.json", "annotations hami.io/*"):
        assert re.search(rf"Warning: .*{re.escape(stays)} stay.*: ", warnings), warnings
    query = ("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    assert kube.exec(namespace, "stays", "nvidia-smi", *query).split() == ["3000"]
    follow(kube, "clean")

    def said():
        try:
            return follow(kube, "clean-log")
        except subprocess.SubprocessError as error:
            return f"no log yet: {error}"

    reason = f"limits of pod {namespace}/stays stay"
    wait_until(lambda: None if reason in said() else f"{reason!r} in {said()!r}", 150)
    assert kube.exec(namespace, "stays", "nvidia-smi", *query).split() == ["3000"]
    kube.kubectl("delete", "pod", "-n", namespace, "stays")
    wait_until(lambda: ", ".join(left(kube)) or None, 150)
    wait_until(lambda: noted(kube), 60)


def noted(kube):
    """Which annotations of ours the nodes have, or None."""
    found = {
        node["metadata"]["name"]: [k for k in node["metadata"]["annotations"] if "hami.io/" in k]
        for node in kube.get("nodes")["items"]
    }
    return f"the end of {found}" if any(found.values()) else None
