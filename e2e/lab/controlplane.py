"""The images that a kubeadm control plane runs, each one program on an empty image."""

from pathlib import Path

from e2e.lab.archive import Image, write_archive, write_layer
from e2e.lab.cache import Part, Work
from e2e.lab.gobuild import GoParts
from e2e.lab.releases import Release
from e2e.lab.tools import Closure

NAMES = "registry.k8s.io"
PODNET = "hami.io/lab/podnet:1"
PATH = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}

# What kube-proxy and podnet call, and a shell to look around with.
TOOLS = (
    *("/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi", "/usr/sbin/nft"),
    *("/usr/sbin/conntrack", "/usr/bin/kmod", "/usr/sbin/modprobe", "/usr/bin/ip"),
    *(f"/usr/bin/{name}" for name in ("bash", "sh", "cat", "ls", "grep", "sleep", "uname")),
)
RECIPE = "1"
"""To be changed when this module makes other images from the same inputs."""
XTABLES = "usr/lib/x86_64-linux-gnu/xtables"
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532::/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnonroot:x:65532:\n",
}


def _tools_layer(tree: Path, target: Path) -> Path:
    closure = Closure(tree)
    for program in TOOLS:
        closure.add(program)
    # loaded by name at run time
    for extension in sorted((tree / XTABLES).iterdir()):
        closure.add(f"/{XTABLES}/{extension.name}")
    for flavour in ("", "-nft", "-legacy"):
        binary = "xtables-legacy-multi" if flavour == "-legacy" else "xtables-nft-multi"
        for family in ("iptables", "ip6tables"):
            for verb in ("", "-save", "-restore"):
                closure.links[f"usr/sbin/{family}{flavour}{verb}"] = binary
    return write_layer(
        target, files=closure.files, links=closure.links, folders={"run": 0o755, "tmp": 0o1777}
    )


def control_plane(release: Release, parts: GoParts, tree: Part) -> Part:
    """One archive with every image that the nodes have from the start."""
    needs = (parts.kubernetes, parts.etcd, parts.coredns, parts.small, tree)
    names = (release.kube, release.etcd, release.coredns, release.pause)
    return Part(
        "control plane images",
        (*names, *TOOLS, *ACCOUNTS.values(), RECIPE),
        lambda work: _build(work, release, parts, tree),
        needs=needs,
    )


def _build(work: Work, release: Release, parts: GoParts, tree: Part) -> None:
    scratch = work.out.parent / "layers"
    scratch.mkdir()
    base = write_layer(scratch / "base", texts=ACCOUNTS, folders={"tmp": 0o1777})
    tools = _tools_layer(work.path(tree) / "tree", scratch / "tools")

    def layer(part: Part, program: str, target: str = "") -> Path:
        source = work.path(part) / program
        return write_layer(scratch / program, files={target or f"usr/local/bin/{program}": source})

    kube, version = parts.kubernetes, f"v{release.kube}"
    images = [
        Image((f"{NAMES}/{name}:{version}",), (base, layer(kube, name)), PATH)
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    ]
    proxy = (tools, layer(kube, "kube-proxy"))
    coredns = {"Entrypoint": ["/coredns"], "User": "65532:65532", "WorkingDir": "/"}
    pause = {"Entrypoint": ["/pause"], "User": "65535:65535"}
    podnet = {"Entrypoint": ["/usr/local/bin/podnet"]}
    images += [
        Image((f"{NAMES}/kube-proxy:{version}",), proxy, PATH),
        Image((f"{NAMES}/etcd:{release.etcd}",), (base, layer(parts.etcd, "etcd")), PATH),
        Image(
            (f"{NAMES}/coredns/coredns:{release.coredns}",),
            (base, layer(parts.coredns, "coredns", "coredns")),
            {**PATH, **coredns},
        ),
        Image(
            (f"{NAMES}/pause:{release.pause}",), (layer(kube, "pause", "pause"),), {**PATH, **pause}
        ),
        Image((PODNET,), (tools, layer(parts.small, "podnet")), {**PATH, **podnet}),
    ]
    write_archive(work.out / "images.tar", images)
