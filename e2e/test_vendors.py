"""Hygon DCUs and Ascend chips from the pod's limits to its grant, on simulated nodes."""

import copy
import json
from pathlib import Path

import pytest

from e2e.kube import wait_until
from e2e.mockplugin import MockPlugin
from e2e.pods import container, pod
from hamikit import names
from hamikit.ascend import ascend_row
from hamikit.codec import RegisteredDevice
from hamikit.devices import HYGON

pytestmark = pytest.mark.cluster
NODE = "hami-worker"
MAPS = ("hami-device-config", "hami-kube-scheduler")
SYSTEM = ("-n", "hami-system")
RIGHTS = Path(__file__).parents[1] / "deploy" / "features" / "lock-protocol" / "cluster-role.yaml"
B3 = ascend_row("Ascend910B3")
SECTIONS = """\
hygon:
  resourceCountName: hygon.com/dcunum
  resourceMemoryName: hygon.com/dcumem
  resourceCoreName: hygon.com/dcucores
vnpus:
  configs:
    - chipName: 910B3
      commonWord: Ascend910B3
      resourceName: huawei.com/Ascend910B3
      resourceMemoryName: huawei.com/Ascend910B3-memory
      memoryAllocatable: 65536
      memoryCapacity: 65536
      aiCore: 20
      aiCPU: 7
      templates:
        - {name: vir05_1c_16g, memory: 16384, aiCore: 5, aiCPU: 1}
        - {name: vir10_3c_32g, memory: 32768, aiCore: 10, aiCPU: 3}
"""
DCU_CARD = RegisteredDevice(
    id="DCU-0", count=4, devmem=65520, devcore=100, type="DCU-K100", mode="hami", health=True
)
CHIP = RegisteredDevice(
    id="Ascend910B3-0", count=4, devmem=65536, devcore=20, type="Ascend910B3", health=True
)


def patch(kube, kind, name, change, how="merge"):
    """Change an object of ours."""
    kube.kubectl("patch", kind, name, *SYSTEM, f"--type={how}", "-p", json.dumps(change))


def template(kube, name):
    """What a Deployment makes its pods from."""
    return kube.get("deployment", name, *SYSTEM)["spec"]["template"]


def roll(kube, templates):
    """Give Deployments these templates and wait for their pods."""
    for name, value in templates.items():
        change = [{"op": "replace", "path": "/spec/template", "value": value}]
        patch(kube, "deployment", name, change, "json")
    for name in templates:
        kube.kubectl("rollout", "status", "deployment", name, *SYSTEM, "--timeout=180s")


def told_of_vendors(name, value):
    """The template with what makes its programs serve both families."""
    variables = {"hami-scheduler": ("HAMI_ENABLE_ASCEND", "HAMI_LOCK_PROTOCOL")}
    env = [{"name": n, "value": "true"} for n in variables.get(name, ("ENABLE_ASCEND",))]
    changed = copy.deepcopy(value)
    spec = changed["spec"]
    for one in (*spec["containers"], *spec.get("initContainers", [])):
        one["env"] = [*one.get("env", []), *env]
    return changed


def with_vendors(maps):
    """The ConfigMaps' data with both families."""
    device, scheduler = (dict(maps[name]) for name in MAPS)
    (key,) = device
    device[key] += SECTIONS
    (key,) = scheduler
    names_ = "".join(f"      - {{name: {r}, ignoredByScheduler: true}}\n" for r in B3.resources)
    scheduler[key] = scheduler[key].replace("managedResources:\n", f"managedResources:\n{names_}")
    return dict(zip(MAPS, (device, scheduler), strict=True))


def settle(kube, maps, templates):
    """Put settings in place and wait until they are those in use."""
    for name, value in maps.items():
        patch(kube, "configmap", name, {"data": value})
    roll(kube, templates)


@pytest.fixture(scope="module")
def vendors(kube):
    """The settings, and afterwards those from before."""
    maps = {name: kube.get("configmap", name, *SYSTEM)["data"] for name in MAPS}
    before = {name: template(kube, name) for name in ("hami-scheduler", "hami-webhook")}
    kube.kubectl("apply", "-f", str(RIGHTS))
    told = {name: told_of_vendors(name, value) for name, value in before.items()}
    settle(kube, with_vendors(maps), told)
    yield
    settle(kube, maps, before)
    kube.kubectl("delete", "-f", str(RIGHTS))


@pytest.mark.parametrize(
    "case",
    [
        (
            HYGON,
            DCU_CARD,
            {"hygon.com/dcunum": "1", "hygon.com/dcumem": "2000", "hygon.com/dcucores": "15"},
            "DCU-0,DCU,2000,15:;",
        ),
        (
            B3,
            CHIP,
            {"huawei.com/Ascend910B3": "1", "huawei.com/Ascend910B3-memory": "16000"},
            "Ascend910B3-0,Ascend910B3,16384,0:;",
        ),
    ],
    ids=["DCU", "Ascend"],
)
def test_from_limits_to_grant(kube, namespace, vendors, case):
    """Bound under the node's lock and served; who asks for more than there is is told so."""
    family, device, limits, granted = case
    plugin = MockPlugin(kube, NODE, family)
    plugin.announce([device])
    try:
        work = container("c", limits, "sleep 600")
        kube.create(pod("one", namespace, work))
        wait_until(lambda: unbound(kube, namespace, "one"), 60)
        assert plugin.allocate(namespace, "one") == granted
        kube.wait_running(namespace, "one")
        kube.create(pod("two", namespace, work))
        wait_until(lambda: unbound(kube, namespace, "two"), 60)
        assert plugin.allocate(namespace, "two") == granted
        kube.wait_running(namespace, "two")
        kube.create(pod("big", namespace, container("c", {family.count: "2"}, "sleep 1")))
        wait_until(lambda: told(kube, namespace), 60)
    finally:
        plugin.withdraw()


def unbound(kube, namespace, name):
    """None once a pod is on the node."""
    found = kube.get("pod", "-n", namespace, name)
    if found["spec"].get("nodeName") is None:
        return f"{name} bound: {kube.events(namespace, name)}"
    assert found["spec"]["nodeName"] == NODE
    assert found["metadata"]["labels"][names.POD_NODE] == NODE
    return None


def told(kube, namespace):
    """None once the pod that needs two devices knows why it waits."""
    said = kube.events(namespace, "big")
    return None if any("no available node" in text for text in said) else f"a reason: {said}"
