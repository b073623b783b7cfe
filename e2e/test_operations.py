"""The procedures of docs/operations.md, command by command (removal: test_uninstall.py)."""

import json
import os
import shutil
import subprocess

import pytest

from e2e import product
from e2e.conftest import REGISTER
from e2e.kube import wait_until
from e2e.load import creations
from e2e.pods import ON_AN_A100, container, pod, slice_of
from e2e.procedures import follow
from e2e.report import wait_agreement

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
NEXT = "0.9.9"


@pytest.fixture(autouse=True)
def running_pod(kube, namespace):
    """A pod that was there before."""
    asked = container("c", slice_of(memory=1700, cores=15))
    kube.create(pod("before", namespace, asked, nodeSelector=ON_AN_A100))
    kube.wait_running(namespace, "before")


@pytest.fixture(autouse=True, scope="module")
def as_before(kube):
    """The product's own manifests again, when all is over."""
    yield
    product.install()


@pytest.fixture
def checkout(tmp_path):
    """A copy of the manifests, to be changed."""
    shutil.copytree(product.ROOT / "deploy", tmp_path / "deploy")
    return tmp_path


def split(kube):
    """How many tasks may share each card of the worker."""
    text = kube.get("node", "hami-worker")["metadata"]["annotations"][REGISTER]
    return {card["count"] for card in json.loads(text)}


@pytest.fixture
def config_file():
    """The file of the procedure, in the checkout, where the checker is at hand."""
    path = product.ROOT / "device-config.yaml"
    yield path
    path.unlink(missing_ok=True)


def test_a_setting_is_changed(kube, config_file):
    """Fetched, changed, checked, written back; a file with a fault is not even written."""
    follow(kube, "fetch-config")
    before = config_file.read_text()
    config_file.write_text(before.replace("deviceSplitCount: 10", "deviceSplitCount: many"))
    with pytest.raises(subprocess.SubprocessError, match="deviceSplitCount"):
        follow(kube, "write-config")
    assert split(kube) == {10}
    config_file.write_text(before.replace("deviceSplitCount: 10", "deviceSplitCount: 7"))
    follow(kube, "write-config")
    wait_until(lambda: None if split(kube) == {7} else f"7 in place of {split(kube)}", 90)


# Each takes most of a minute; `make soak` does them all.
UPGRADED = {
    "deployment/hami-webhook": "hami-webhook",
    "daemonset/hami-device-plugin": "hami-device-plugin",
    "deployment/hami-scheduler": "hami-extender",
    "daemonset/hami-monitor": "hami-monitor",
    "daemonset/hami-core": "hami-core",
}
CHOSEN = list(UPGRADED)[: int(os.environ.get("PINS", "2"))]


@pytest.mark.parametrize("workload", CHOSEN)
def test_one_component_is_upgraded_and_rolled_back(kube, namespace, audit, checkout, workload):
    """By its pin alone, while pods are created; nobody notices."""
    image = UPGRADED[workload]
    kube.run("docker", "tag", product.tagged(image), f"{image}:{NEXT}")
    kube.run("python3", "-m", "e2e.lab", "load", f"{image}:{NEXT}")
    body = pod("load", namespace, container("c", slice_of(memory=100)))
    with creations(namespace, body) as load:
        for version in (NEXT, product.pins()[image]):
            names = {"IMAGE": image, "VERSION": version, "WORKLOAD": workload}
            follow(kube, "upgrade", folder=checkout, **names)
            spec = kube.get("-n", "hami-system", workload)["spec"]["template"]["spec"]
            every = [*spec.get("initContainers", []), *spec["containers"]]
            assert f"{image}:{version}" in [each["image"] for each in every]
            name = f"with-{version.replace('.', '-')}"
            asked = container("c", slice_of(memory=900))
            kube.create(pod(name, namespace, asked, nodeSelector=ON_AN_A100))
            kube.wait_running(namespace, name)
    assert load.failures == []
    wait_agreement(kube, namespace)
    assert audit() == []
