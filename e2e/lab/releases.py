"""The Kubernetes versions that the lab can start, and what each is made of."""

from dataclasses import dataclass

from e2e.lab.errors import LabError


@dataclass(frozen=True, slots=True)
class Release:
    """One Kubernetes minor version.

    Attributes:
        minor: for instance "1.34".
        node_image: kind's own node image, pinned by the release notes of kind v0.33.0.
        kube: the version that `e2e/node-image` builds; empty where it builds none.
        etcd: the tag of the etcd image that this version's kubeadm asks for.
        coredns: the same for CoreDNS.
        pause: the same for the sandbox.
    """

    minor: str
    node_image: str
    kube: str = ""
    etcd: str = ""
    coredns: str = ""
    pause: str = ""


def _node(version: str, digest: str) -> str:
    return f"kindest/node:v{version}@sha256:{digest}"


RELEASES = (
    Release(
        minor="1.34",
        node_image=_node(
            "1.34.11", "44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d"
        ),
        kube="1.34.4",
        # `kubeadm config images list --kubernetes-version v1.34.4`
        etcd="3.6.5-0",
        coredns="v1.12.1",
        pause="3.10.1",
    ),
    Release(
        minor="1.35",
        node_image=_node(
            "1.35.8", "07b2536e30b803ed61d1677a79df6115f798ce64c80f9e22f6ed45afd09323c0"
        ),
    ),
    Release(
        minor="1.36",
        node_image=_node(
            "1.36.4", "099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"
        ),
    ),
)


def choose(wanted: str) -> Release:
    """The release that `KUBE=` names, as "1.34" or, where it is built here, "1.34.4"."""
    for release in RELEASES:
        if wanted and wanted in (release.minor, release.kube):
            return release
    known = ", ".join(f"{r.minor} ({r.kube})" if r.kube else r.minor for r in RELEASES)
    raise LabError(
        f"KUBE={wanted} is not a version the lab knows: {known}. "
        "Another one needs its row in e2e/lab/releases.py and, to be built without a registry, "
        "its folder e2e/node-image/go/kubernetes-<minor>."
    )
