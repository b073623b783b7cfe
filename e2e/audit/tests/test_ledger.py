"""Whose process holds what."""

import pytest

from e2e.audit.ledger import owner_of, parse_ledger
from e2e.audit.model import Use

UID = "0a1b2c3d-1111-2222-3333-444455556666"
NODE, ID = "d" * 64, "ab" * 32
CGROUPFS = f"""12:memory:/docker/{NODE}/kubelet/kubepods/burstable/pod{UID}/{ID}
1:name=systemd:/docker/{NODE}/kubelet/kubepods/burstable/pod{UID}/{ID}
"""
SYSTEMD = (
    f"0::/system.slice/docker-{NODE}.scope/kubelet.slice/kubelet-kubepods.slice/"
    f"kubelet-kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-{ID}.scope\n"
)


@pytest.mark.parametrize("text", [CGROUPFS, SYSTEMD, SYSTEMD.strip() + "/init"])
def test_finds_pod_and_container(text):
    """Both cgroup drivers, inside a node that is a container itself."""
    assert owner_of(text) == (UID, ID)


@pytest.mark.parametrize("text", ["", "0::/user.slice\n", f"0::/docker/{NODE}\n"])
def test_a_process_of_no_pod(text):
    """The node's own container is no pod."""
    assert owner_of(text) is None


def test_reads_the_ledger():
    """Contexts are not counted; a process that cannot be told is kept with the reason."""
    processes = [
        {"pid": 7, "bytes": 500, "context_bytes": 300},
        {"pid": 0, "bytes": 10, "context_bytes": 0},
        {"pid": 8, "bytes": 20, "context_bytes": 0},
        {"pid": 9, "bytes": 30, "context_bytes": 0},
    ]
    ledger = {"cards": [{"uuid": "GPU-a", "processes": processes}]}
    cards, uses = parse_ledger(ledger, {7: CGROUPFS, 9: "0::/user.slice\n"}.get)
    assert cards == {"GPU-a"}
    assert uses == (
        Use("GPU-a", 7, 200, (UID, ID)),
        Use("GPU-a", 0, 10, None, "it is invisible from here"),
        Use("GPU-a", 8, 20, None, "it is gone but its memory is still charged"),
        Use("GPU-a", 9, 30, None, "it is in no pod: ['0::/user.slice']"),
    )
