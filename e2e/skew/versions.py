"""A component's previous version: where the history has it, its image, its manifests."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

from e2e import mig, product
from e2e.kube import Kube

Git = Callable[..., str]


@dataclass(frozen=True)
class Component:
    """What belongs to a component; `folder` is the one of its manifests in deploy."""

    image: str
    folder: str
    workload: str


COMPONENTS = {
    "webhook": Component("hami-webhook", "base/webhook", "deployment/hami-webhook"),
    "extender": Component("hami-extender", "base/scheduler", "deployment/hami-scheduler"),
    "device-plugin": Component(
        "hami-device-plugin", "base/device-plugin", "daemonset/hami-device-plugin"
    ),
    "monitor": Component("hami-monitor", "base/monitor", "daemonset/hami-monitor"),
    "hami-core": Component("hami-core", "base/hami-core", "daemonset/hami-core"),
    "mig-manager": Component("hami-mig-manager", "features/mig", "daemonset/hami-mig-manager"),
}
DIVIDING = "mig-manager"
"""It is not in the kind overlay, and its pods are others.

Extender and device plugin 0.1.0 know no MIG yet, so these are not tried beside divided cards.
"""


class HistoryError(LookupError):
    """A version that the repository's history does not have; the text says what to do."""


def git(*arguments: str) -> str:
    """What git says about this repository."""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=product.ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def refs(chosen: str) -> dict[str, str]:
    """Component -> ref, from `webhook=v1 monitor=abc`; a name alone means its previous version.

    Raises:
        HistoryError: no such component.
    """
    found = {}
    for word in chosen.split() or COMPONENTS:
        component, _, ref = word.partition("=")
        if component not in COMPONENTS:
            raise HistoryError(f"{component!r} is no component; write one of {[*COMPONENTS]}")
        found[component] = ref
    return found


def previous(component: str, ask: Git = git) -> str:
    """The commit of a component's newest release before HEAD.

    That is its newest tag. Before its first tag it is the last commit at which its changelog had
    nothing under `## Unreleased`.

    Raises:
        HistoryError: the history does not go back that far.
    """
    head = ask("rev-parse", "HEAD")
    tags = ask("tag", "--list", f"{component}/v*", "--sort=-version:refname", "--merged", "HEAD")
    for tag in tags.split():
        if (commit := ask("rev-parse", f"{tag}^{{commit}}")) != head:
            return commit
    path = f"components/{component}/CHANGELOG.md"
    began = ask("log", "-S## Unreleased", "--reverse", "--format=%H", "--", path).split()
    if not began:
        raise HistoryError(
            f"no tag {component}/v* and no `## Unreleased` in the history of {path}; "
            f"name the version: SKEW={component}=REF"
        )
    return ask("rev-parse", f"{began[0]}^")


@dataclass(frozen=True)
class Version:
    """A component's version, ready to run: its image is on the nodes."""

    component: Component
    commit: str
    objects: tuple[dict[str, Any], ...]


def prepare(kube: Kube, component: str, ref: str = "") -> Version:
    """Build a version's image, put it on the nodes, and render its own manifests."""
    commit = git("rev-parse", ref) if ref else previous(component)
    what = COMPONENTS[component]
    image = f"{what.image}:skew-{commit[:12]}"
    with checkout(commit) as tree:
        if not product.image_id(kube, image):
            build = ("docker", "build", "--network", "host")
            base = ("--build-arg", f"BASE={kube.environment['BASE']}")
            folder = tree / "components" / component
            kube.run(*build, *base, "-f", str(folder / "Dockerfile"), "-t", image, str(tree))
        objects = tuple(_own(kube, tree, what, image))
    kube.run("python3", "-m", "e2e.lab", "load", image)
    return Version(what, commit, objects)


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The repository as it was, in a folder for a while."""
    with TemporaryDirectory() as folder:
        archive = Path(folder) / "tree.tar"
        git("archive", "--format=tar", f"--output={archive}", commit)
        tree = Path(folder) / "tree"
        tree.mkdir()
        subprocess.run(["tar", "-xf", str(archive), "-C", str(tree)], check=True)
        yield tree


def _own(kube: Kube, tree: Path, what: Component, image: str) -> Iterator[dict[str, Any]]:
    """A component's objects as its own version of the overlay has them, with this image."""
    deploy = tree / "deploy"
    own = {_key(o) for o in rendered(kube, deploy / what.folder)}
    for obj in rendered(kube, _overlay(what, deploy, tree / "overlay")):
        if _key(obj) in own:
            yield with_image(obj, what.image, image)


def _overlay(what: Component, deploy: Path, folder: Path) -> Path:
    """What the lab has on its cluster when a component runs there; `folder` is for what is made."""
    divides = what is COMPONENTS[DIVIDING]
    return mig.overlay(deploy, folder) if divides else deploy.parent / product.OVERLAY


def rendered(kube: Kube, folder: Path) -> list[dict[str, Any]]:
    """All objects of a kustomization."""
    text = kube.kubectl("kustomize", str(folder))
    return [dict(obj) for obj in YAML(typ="safe").load_all(text)]


def _key(obj: Mapping[str, Any]) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]


def with_image(obj: dict[str, Any], name: str, image: str) -> dict[str, Any]:
    """A workload whose containers of the image `name` run `image`; other objects as they are."""
    spec = obj.get("spec", {}).get("template", {}).get("spec", {})
    for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        if container["image"].partition(":")[0] == name:
            container["image"] = image
    return obj


@contextmanager
def running(kube: Kube, version: Version) -> Iterator[None]:
    """A component at this version on the cluster; as it was afterwards."""
    where = ("-n", "hami-system", version.component.workload, "--timeout=180s")
    kube.apply(*version.objects)
    try:
        kube.kubectl("rollout", "status", *where)
        yield
    finally:
        with TemporaryDirectory() as folder:
            present = _overlay(version.component, product.ROOT / "deploy", Path(folder))
            kube.kubectl("apply", "-k", str(present))
        kube.kubectl("rollout", "status", *where)
