"""Our product on the cluster: images, simulated cards, manifests; and all of it away again."""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from e2e import cards
from e2e.kube import Deadline, Kube, wait_until
from e2e.lab import config as lab_config
from e2e.lab.console import Console
from e2e.lab.errors import LabError
from e2e.lab.lab import Lab

ROOT = Path(__file__).resolve().parents[1]
PROBE_VERSION = "0.1.0"
# Image -> folder of its Dockerfile. The probe is built beside the fake driver, all others here.
IMAGES = {
    "hami-webhook": "components/webhook",
    "hami-extender": "components/extender",
    "hami-device-plugin": "components/device-plugin",
    "hami-monitor": "components/monitor",
    "hami-mig-manager": "components/mig-manager",
    "hami-core": "components/hami-core",
    "hami-probe": "e2e/probe",
}
OVERLAY = "deploy/overlays/kind"
DAEMONS = ("hami-core", "hami-device-plugin", "hami-monitor")
DEPLOYMENTS = ("hami-webhook", "hami-scheduler")


def pins() -> dict[str, str]:
    """Image -> its version: as deploy/features/release has it, and the probe's own."""
    path = ROOT / "deploy/features/release/kustomization.yaml"
    images = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["images"]
    return {"hami-probe": PROBE_VERSION, **{each["name"]: each["newTag"] for each in images}}


def tagged(name: str) -> str:
    """An image with its version."""
    return f"{name}:{pins()[name]}"


def connect() -> Kube:
    """The lab's cluster."""
    lab = lab_config.load()
    exports = Lab(lab, Console()).exports()
    return Kube(exports, str(lab.bin / "kubectl"), lab.nodes)


@contextmanager
def step(what: str) -> Iterator[None]:
    """One line for people: what is done, and how long it took."""
    begin = time.monotonic()
    print(f"{what} ...", end=" ", flush=True)
    yield
    print(f"{time.monotonic() - begin:.1f} s", flush=True)


def image_id(kube: Kube, image: str) -> str:
    """The id of an image in the lab's Docker, empty when it is not there."""
    return kube.run("docker", "images", "-q", "--no-trunc", image, check=False).strip()


def build(kube: Kube, name: str, folder: str) -> None:
    """Build one image from its Dockerfile; quick where Docker's own cache has it."""
    log = lab_config.load().state / f"image-{name}.log"
    base = kube.environment["BASE"]
    command = ["docker", "build", "--network", "host", "--build-arg", f"BASE={base}"]
    context = cards.build_folder() if name == "hami-probe" else ROOT
    command += ["-f", str(ROOT / folder / "Dockerfile"), "-t", tagged(name), str(context)]
    try:
        out = kube.run(*command)
    except subprocess.SubprocessError as error:
        log.write_text(str(error), encoding="utf-8")
        tail = "\n".join(str(error).splitlines()[-15:])
        raise SystemExit(f"\nbuilding {name} failed; whole log: {log}\n{tail}") from error
    log.write_text(out, encoding="utf-8")


def images() -> None:
    """Build every image, and load those that changed into the nodes."""
    kube, lab = connect(), lab_config.load()
    with step("base image"):
        kube.run(sys.executable, "-m", "e2e.lab", "build-base")
    with step("simulated driver"):
        cards.build()
    stamps = lab.state / "loaded"
    stamps.mkdir(exist_ok=True)
    changed = {}
    for name, folder in IMAGES.items():
        with step(f"image {name}"):
            build(kube, name, folder)
        found, stamp = image_id(kube, tagged(name)), stamps / name
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != found:
            changed[stamp] = found
    if changed:
        # All at once: layers that they share travel once.
        names = [tagged(stamp.name) for stamp in changed]
        with step(f"load {len(names)} of them into the nodes"):
            kube.run(sys.executable, "-m", "e2e.lab", "load", *names)
        for stamp, found in changed.items():
            stamp.write_text(found, encoding="utf-8")


def install() -> None:
    """Put cards and manifests in place and wait until every part is ready."""
    kube = connect()
    with step("simulated cards"):
        cards.install(kube)
    with step("manifests"):
        kube.kubectl("apply", "-k", str(ROOT / OVERLAY))
        changed = restart_changed(kube)
    for kind, names in (("daemonset", DAEMONS), ("deployment", DEPLOYMENTS)):
        for name in names:
            with step(f"{name} ready" + (" (new image)" if name in changed else "")):
                where = ("-n", "hami-system", f"{kind}/{name}")
                kube.kubectl("rollout", "status", *where, "--timeout=180s")
    with step("nodes announce their cards"):
        wait_until(lambda: unannounced(kube), 60)


def restart_changed(kube: Kube) -> set[str]:
    """Roll out every workload of which a pod runs another image of the same tag."""
    uses = {
        "hami-scheduler": ("deployment", "hami-extender"),
        "hami-webhook": ("deployment", "hami-webhook"),
        **{name: ("daemonset", name) for name in DAEMONS},
    }
    changed = {name for name, (_, image) in uses.items() if stale(kube, name, image)}
    for name in changed:
        kube.kubectl("rollout", "restart", "-n", "hami-system", f"{uses[name][0]}/{name}")
    return changed


def stale(kube: Kube, workload: str, image: str) -> bool:
    """Whether a pod that has begun runs something else than the image as it is now."""
    where = ("-n", "hami-system", "-l", f"app.kubernetes.io/name={workload}")
    present = image_id(kube, tagged(image))
    for pod in kube.get("pods", *where)["items"]:
        begun = {each["imageID"] for each in pod["status"].get("containerStatuses", ())} - {""}
        if begun and present not in begun:
            return True
    return False


def unannounced(kube: Kube) -> str | None:
    """Which node does not announce its cards yet."""
    for node in kube.get("nodes")["items"]:
        if "hami.io/node-nvidia-register" not in node["metadata"].get("annotations", {}):
            return f"cards of {node['metadata']['name']}"
    return None


def uninstall() -> None:
    """Remove the manifests, then what they left on the nodes and no pod uses."""
    kube = connect()
    with step("delete the manifests"):
        kube.kubectl("delete", "-k", str(ROOT / OVERLAY), "--ignore-not-found")
    with step("clean the nodes"):
        overlay = str(ROOT / "deploy/overlays/uninstall")
        kube.kubectl("apply", "-k", overlay)
        where = ("-n", "hami-uninstall", "daemonset/hami-uninstall")
        kube.kubectl("rollout", "status", *where, "--timeout=120s")
        print(kube.kubectl("logs", *where, "--all-containers", check=False))
        kube.kubectl("delete", "-k", overlay)


def main() -> int:
    """`python -m e2e.product images|install|uninstall`."""
    verbs: dict[str, Callable[[], None]] = {
        "images": images,
        "install": install,
        "uninstall": uninstall,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=verbs)
    return told(verbs[parser.parse_args().verb])


def told(work: Callable[[], None]) -> int:
    """Run something for a person: what goes wrong is told in words."""
    try:
        work()
    except (subprocess.SubprocessError, Deadline, LabError) as error:
        print("\n" + "\n".join(str(error).splitlines()[-20:]), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
