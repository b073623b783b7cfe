"""The environment decides names, folders and the Kubernetes version."""

import re
from pathlib import Path

import pytest

from e2e.lab import apt, config, engine
from e2e.lab.cluster import render
from e2e.lab.errors import LabError
from e2e.lab.gobuild import pinned
from e2e.lab.releases import RELEASES, choose


def test_defaults():
    """Without variables: cluster hami, Kubernetes 1.34, folders below HOME."""
    found = config.load({"HOME": "/home/a"})
    assert (found.cluster, found.release.minor) == ("hami", "1.34")
    assert found.cache == Path("/home/a/.cache/hami-lab")
    assert found.state == Path("/home/a/.local/state/hami-lab/hami")
    assert found.nodes == ("hami-control-plane", "hami-worker")


def test_xdg_folders():
    """The XDG variables move both folders."""
    found = config.load({"XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "/s", "HAMI_LAB_CLUSTER": "two"})
    assert (found.cache, found.state) == (Path("/c/hami-lab"), Path("/s/hami-lab/two"))


@pytest.mark.parametrize("name", ["", "Hami", "a" * 12, "1a", "a-b", "a/b"])
def test_bad_names(name):
    """A name that no bridge can have is refused."""
    with pytest.raises(LabError, match="a cluster's name"):
        config.load({"HAMI_LAB_CLUSTER": name})


@pytest.mark.parametrize("wanted", ["1.34", "1.34.4"])
def test_version(wanted):
    """A release is named by its minor version or by the version built here."""
    assert choose(wanted) is RELEASES[0]


@pytest.mark.parametrize("wanted", ["1.33", "1.34.5", "", "latest"])
def test_unknown_version(wanted):
    """An unknown version is refused with those that are known."""
    with pytest.raises(LabError, match=r"1\.34 \(1\.34\.4\), 1\.35"):
        choose(wanted)


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.minor)
def test_releases(release):
    """Images are pinned by digest; what is built is what the module file pins."""
    assert re.fullmatch(
        rf"kindest/node:v{release.minor}\.\d+@sha256:[0-9a-f]{{64}}", release.node_image
    )
    if release.kube:
        folder = config.CHECKOUT / "e2e" / "node-image" / "go" / f"kubernetes-{release.minor}"
        assert pinned(folder / "go.mod", "k8s.io/kubernetes") == release.kube
        assert all((release.etcd, release.coredns, release.pause))


def test_cluster_file():
    """Each node gets its own driver and CDI folders."""
    text = (config.CHECKOUT / "e2e" / "kind" / "cluster.yaml").read_text()
    found = render(text, config.load({"HOME": "/h"}))
    assert "$" not in found
    for node in ("hami-control-plane", "hami-worker"):
        for folder in ("driver", "cdi"):
            assert f"hostPath: /h/.local/state/hami-lab/hami/nodes/{node}/{folder}\n" in found


def test_installed_packages():
    """Only what is installed counts, not what was removed with its settings left."""
    listing = "gcc installed\ndocker.io config-files\nlibc6 installed\n"
    assert apt.installed(listing) == {"gcc", "libc6"}


def test_mirror():
    """The Debian mirror is found among third-party lists and other suites."""
    targets = (
        "http://other/debian bookworm Other Packages\n"
        "http://mirror/security bookworm-security Debian-Security Packages\n"
        "http://mirror/debian bookworm Debian DEP-11\n"
        "http://mirror/debian bookworm Debian Packages\n"
    )
    assert apt.mirror(targets, "bookworm") == "http://mirror/debian"
    assert apt.mirror("", "bookworm") is None


@pytest.mark.parametrize(
    ("mask", "lacks"),
    [("000001fffeffffff", True), ("000001ffffffffff", False), ("0000000000000000", True)],
)
def test_capability(mask, lacks):
    """The wrapper is used where the effective set lacks CAP_SYS_RESOURCE."""
    assert engine.lacks_sys_resource(f"Name:\tx\nCapEff:\t{mask}\n") is lacks


def test_daemon_settings():
    """Our Docker keeps to its own folders and leaves the firewall alone."""
    lab = config.load({"HOME": "/h"})
    found = engine.settings(lab, Path("/w"))
    assert found["runtimes"] == {"nosysres": {"path": "/w"}}
    assert found["iptables"] is False
    assert found["cgroup-parent"] == "/hami-lab-hami"
    assert "runtimes" not in engine.settings(lab, None)
    for key in ("data-root", "exec-root", "pidfile"):
        assert found[key].startswith(str(lab.state))
