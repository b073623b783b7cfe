"""A node whose runtime does not do CDI: no card and a clear word, never all cards."""

import pytest

from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of
from e2e.procedures import follow

pytestmark = pytest.mark.cluster
CONFIG = "/etc/containerd/config.toml"
NODE = "hami-worker"
# Puts the setting right below the head of the CRI runtime's section, instead of any other.
OFF = r"/enable_cdi/d; s/^ *\[plugins\..io\.containerd\.cri\.v1\.runtime.\]$/&\nenable_cdi = false/"


@pytest.fixture
def cdi_off(kube):
    """Containerd of the worker without CDI, and with it again afterwards."""
    section = "[plugins.'io.containerd.cri.v1.runtime']"
    kube.node(NODE, "cp", CONFIG, f"{CONFIG}.kept")
    kube.node(NODE, "sed", "-i", OFF, CONFIG)
    if "enable_cdi = false" not in kube.node(NODE, "cat", CONFIG):
        raise AssertionError(f"no section {section} in the node's {CONFIG}")
    kube.node(NODE, "systemctl", "restart", "containerd")
    yield
    kube.node(NODE, "mv", f"{CONFIG}.kept", CONFIG)
    kube.node(NODE, "systemctl", "restart", "containerd")
    wait_until(lambda: None if binding(kube) == "late" else "late binding again", 180)


def binding(kube):
    """The binding protocol that the worker announces."""
    annotations = kube.get("node", NODE)["metadata"]["annotations"]
    return annotations.get("hami.io/node-nvidia-binding")


def test_no_card_and_a_clear_event(kube, namespace, cdi_off):
    """The pod waits, and its event names CDI; so does the node."""
    where = {"kubernetes.io/hostname": NODE}
    asked = container("c", slice_of(memory=1000), "ls /dev/nvidia*; sleep 3600")
    kube.create(pod("nocdi", namespace, asked, nodeSelector=where))

    def explained():
        said = kube.said(namespace, "nocdi")
        return None if "CDI" in said else f"CDI in {said!r}"

    def told():
        said = follow(kube, "cdi-reason", NODE=NODE)
        return None if "enable_cdi=false" in said else f"the node's reason, which is {said!r}"

    wait_until(explained, 120)
    wait_until(told, 120)
    status = kube.get("pod", "-n", namespace, "nocdi")["status"]
    assert status["phase"] == "Pending"
