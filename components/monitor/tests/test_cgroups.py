"""Pods and containers by the names that runtimes give to cgroups."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami_monitor.cgroups import Owner, owners

UID = "8f2c1d6e-0a1b-4c3d-9e8f-0123456789ab"
FLAT = UID.replace("-", "_")
HASH = "0123456789abcdef0123456789abcdef"
CID = "c0ffee" * 10 + "beef"
V1 = "11:memory:{path}\n1:name=systemd:{path}\n0::/\n"
V2 = "0::{path}\n"


@pytest.mark.parametrize("form", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods/pod{UID}/{CID}",
        f"/kubepods/burstable/pod{UID}/{CID}",
        f"/kubepods/besteffort/pod{UID}/{CID}",
        f"/kubepods.slice/kubepods-pod{FLAT}.slice/cri-containerd-{CID}.scope",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{FLAT}.slice/crio-{CID}.scope",
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{FLAT}.slice/docker-{CID}.scope",
        f"/docker/{'a' * 64}/kubelet/kubepods/burstable/pod{UID}/{CID}",
        f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{FLAT}.slice/cri-containerd-{CID}.scope",
        f"/system.slice/containerd.service/kubepods-burstable-pod{FLAT}.slice:cri-containerd:{CID}",
        f"/../../kubepods-burstable-pod{FLAT}.slice/cri-containerd-{CID}.scope",
        f"/../pod{UID}/{CID}",
        f"/kubepods/pod{UID}/{CID}/system.slice/app.service",
    ],
)
def test_every_qos_class_and_driver(form, path):
    """Both drivers, all classes, namespaced paths, nested cgroups, nodes in containers."""
    assert owners(form.format(path=path)) == (Owner(UID, CID),)


def test_a_static_pod_is_known_by_its_hash():
    """Kubelet names it by its manifest, without dashes."""
    assert owners(f"0::/kubepods/burstable/pod{HASH}/{CID}") == (Owner(HASH, CID),)
    systemd = f"0::/kubepods.slice/kubepods-burstable-pod{HASH}.slice/cri-containerd-{CID}.scope"
    assert owners(systemd) == (Owner(HASH, CID),)


@pytest.mark.parametrize(
    "text",
    ["", "0::/\n", "0::/user.slice/user-0.slice", "4:memory:/docker/" + "a" * 64, "nonsense"],
)
def test_what_is_in_no_pod_belongs_to_the_host(text):
    """Containers that kubelet did not make, too."""
    assert owners(text) == ()


def test_a_pods_own_cgroup_has_no_container():
    """As the processes of a sandbox that a runtime keeps there."""
    assert owners(f"0::/kubepods/pod{UID}") == (Owner(UID, ""),)


def test_nested_nodes_give_both_pods_outermost_first():
    """A node that runs in a pod of another cluster; which of them is ours, the API knows."""
    inner = "11111111-0a1b-4c3d-9e8f-0123456789ab"
    path = f"0::/kubepods/pod{UID}/{CID}/kubelet/kubepods/pod{inner}/{'b' * 64}"
    assert owners(path) == (Owner(UID, CID), Owner(inner, "b" * 64))


@given(st.text())
def test_any_text_is_read(text):
    """Names of cgroups are a tenant's choice where it may make some."""
    assert isinstance(owners(text), tuple)
