"""Debian trees, and the images made of them: the node and the base of our own images."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template

from e2e.lab import apt
from e2e.lab.archive import Image, write_archive
from e2e.lab.cache import Part, Work
from e2e.lab.config import Config
from e2e.lab.gobuild import GoParts

BASE_TAG = "hami-base:bookworm"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# Nobody reads these in a container.
NOT_NEEDED = (
    *("./boot", "./var/cache/apt/*", "./var/lib/apt/lists/*", "./usr/lib/udev/hwdb.bin"),
    *(f"./usr/share/{name}" for name in ("doc", "man", "locale", "zoneinfo", "info")),
)


def tree(name: str, packages: Path) -> Part:
    """A minimal bookworm with the packages that a file lists, in the folder `tree`."""

    def build(work: Work) -> None:
        includes = packages.read_text().split()
        full = work.out.parent / "full"
        work.run(*apt.debootstrap(str(full), includes, os.environ))
        target = work.out / "tree"
        target.mkdir()
        leave_out = " ".join(f"'--exclude={pattern}'" for pattern in NOT_NEEDED)
        work.run(
            "sh",
            "-ec",
            f'tar -C "$1" {leave_out} -c . | tar -C "$2" -x',
            "sh",
            str(full),
            str(target),
        )

    return Part(name, (packages, *NOT_NEEDED), build, waits_for="debootstrap, about a minute")


def pack(work: Work, source: Path, tag: str, config: Mapping[str, object]) -> None:
    """Makes a whole tree one image, in `image.tar`."""
    layer = work.out.parent / "layer"
    work.run("tar", "-C", str(source), "--numeric-owner", "-cf", str(layer), ".")
    write_archive(work.out / "image.tar", [Image((tag,), (layer,), config)])


def base_image(config: Config) -> Part:
    """`hami-base:bookworm`: Python 3.11 on Debian, as python:3.11-slim-bookworm has it."""
    packages = config.recipes / "base-packages.txt"
    script = config.recipes / "base.sh"
    plain = tree("Debian tree with Python", packages)

    def build(work: Work) -> None:
        root = work.out.parent / "root"
        work.run("cp", "-a", str(work.path(plain) / "tree"), str(root))
        if CA_BUNDLE.exists():
            # This machine's bundle, so that pip in a build trusts what this machine trusts.
            shutil.copyfile(CA_BUNDLE, root / CA_BUNDLE.relative_to("/"))
        work.run("sh", "-eu", str(script), str(root))
        variables = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
        env = [
            "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
            *(f"{name}={CA_BUNDLE}" for name in variables),
        ]
        pack(work, root, BASE_TAG, {"Env": env, "Cmd": ["python3"]})

    bundle = (CA_BUNDLE,) if CA_BUNDLE.exists() else ()
    return Part("base image", (script, *bundle), build, needs=(plain,))


def node_tree(config: Config) -> Part:
    """The Debian that a node is made of."""
    return tree("Debian tree of a node", config.recipes / "node-packages.txt")


def node_tag(config: Config) -> str:
    """The name of the node image that is built here."""
    return f"hami.io/lab/node:v{config.release.kube}"


def node_image(config: Config, parts: GoParts, images: Part) -> Part:
    """A node for kind: Debian, kind's own files, the programs, the images unpacked."""
    plain = node_tree(config)
    recipes = config.recipes
    script, preload = recipes / "node.sh", recipes / "preload.sh"
    manifests, toml = recipes / "manifests", recipes / "node-containerd.toml"
    programs = (parts.kubernetes, parts.kubectl, parts.containerd, parts.runc)

    def build(work: Work) -> None:
        root = work.out.parent / "root"
        work.run("cp", "-a", str(work.path(plain) / "tree"), str(root))
        kind_files = work.path(parts.kind) / "files"
        work.run("sh", "-eu", str(script), str(root), str(kind_files), str(manifests))
        for part in programs:
            for program in sorted(work.path(part).iterdir()):
                place = PLACES.get(program.name)
                if place:
                    work.run(
                        "install", "-D", "-m755", str(program), f"{root}/{place}/{program.name}"
                    )
        text = Template(toml.read_text()).substitute(pause=config.release.pause)
        (root / "etc/containerd/config.toml").write_text(text)
        (root / "kind/version").write_text(f"v{config.release.kube}")
        work.run(
            str(preload),
            str(work.path(parts.containerd)),
            str(root / "var/lib/containerd"),
            str(work.path(images) / "images.tar"),
            str(work.out.parent / "containerd"),
        )
        pack(work, root, node_tag(config), NODE_CONFIG)

    return Part(
        "node image",
        (script, preload, manifests, toml, config.release.kube, config.release.pause),
        build,
        needs=(plain, images, parts.kind, *programs),
        waits_for="unpacking and packing, up to a minute",
    )


PLACES = {
    **dict.fromkeys(("kubelet", "kubeadm", "kubectl"), "usr/bin"),
    **dict.fromkeys(("containerd", "ctr", "containerd-shim-runc-v2", "crictl"), "usr/local/bin"),
    "runc": "usr/local/sbin",
}
NODE_CONFIG: Mapping[str, object] = {
    "Env": [
        "container=docker",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ],
    "Entrypoint": ["/usr/local/bin/entrypoint", "/sbin/init"],
    # systemd halts on this one; without it `docker stop` takes 11 s
    "StopSignal": "SIGRTMIN+3",
}
