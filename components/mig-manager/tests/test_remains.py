"""Pods with cgroups on the node."""

import pytest

from hami_mig_manager.remains import Remains

UID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
OTHER = "6fa459ea-ee8a-3ca4-894e-db77e160355e"
SYSTEMD = UID.replace("-", "_")


@pytest.mark.parametrize(
    "path",
    [
        f"kubepods/pod{UID}",
        f"kubepods/burstable/pod{UID}/abc",
        f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SYSTEMD}.slice",
        f"kubepods.slice/kubepods-pod{SYSTEMD}.slice",
        f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SYSTEMD}.slice",
        f"kubelet/kubepods/besteffort/pod{UID}",
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_pod_with_a_cgroup_is_still_there(tmp_path, path, version):
    """With either driver, in either version, also where kubelet has a root of its own."""
    (tmp_path / "cgroup.controllers").touch() if version == 2 else None
    top = tmp_path if version == 2 else tmp_path / "memory"
    (top / path).mkdir(parents=True)
    (top / "system.slice").mkdir()
    assert Remains(tmp_path)({UID, OTHER}) == {UID}


def test_what_cannot_be_told_counts_as_there(tmp_path):
    """A folder that is no cgroup root says nothing."""
    assert Remains(tmp_path / "none")({UID}) == {UID}
    assert Remains(tmp_path)({UID}) == {UID}
    assert Remains(tmp_path)(set()) == frozenset()
