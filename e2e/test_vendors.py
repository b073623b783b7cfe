"""Other resources from limits to grant: DCUs, Ascend chips on simulated nodes, renamed cards."""

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
from hamikit.devices import HYGON, NVIDIA

pytestmark = pytest.mark.cluster
NODE = "hami-worker"
MAPS = ("hami-device-config", "hami-kube-scheduler")
SYSTEM = ("-n", "hami-system")
RENAMED = "acme.com/"
PLUGIN = ("daemonset", "hami-device-plugin", *SYSTEM)
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
        kube.kubectl("rollout", "status", "deployment", name, *SYSTEM, "--timeout=240s")


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
    """The ConfigMaps' data with both families and NVIDIA's resources renamed."""
    device, scheduler = (dict(maps[name]) for name in MAPS)
    (key,) = device
    device[key] = device[key].replace("nvidia.com/", RENAMED) + SECTIONS
    (key,) = scheduler
    more = (*B3.resources, *map(renamed, NVIDIA.resources))
    names_ = "".join(f"      - {{name: {r}, ignoredByScheduler: true}}\n" for r in more)
    scheduler[key] = scheduler[key].replace("managedResources:\n", f"managedResources:\n{names_}")
    return dict(zip(MAPS, (device, scheduler), strict=True))


def renamed(resource):
    """The name under which this resource of NVIDIA's goes here."""
    return resource.replace("nvidia.com/", RENAMED)


def settle(kube, maps, templates, cards):
    """Put settings in place and wait until they are those in use; `cards` counts ours."""
    for name, value in maps.items():
        patch(kube, "configmap", name, {"data": value})
    kube.kubectl("rollout", "restart", *PLUGIN)
    roll(kube, templates)
    kube.kubectl("rollout", "status", *PLUGIN, "--timeout=240s")
    wait_until(lambda: offered(kube, cards), 120)


def offered(kube, cards):
    """None once kubelet offers our cards under this name."""
    found = kube.get("node", NODE)["status"]["allocatable"]
    return None if int(found.get(cards, 0)) else f"{cards} on {NODE}, which has {found}"


@pytest.fixture(scope="module")
def vendors(kube):
    """The settings, and afterwards those from before."""
    maps = {name: kube.get("configmap", name, *SYSTEM)["data"] for name in MAPS}
    before = {name: template(kube, name) for name in ("hami-scheduler", "hami-webhook")}
    kube.kubectl("apply", "-f", str(RIGHTS))
    told = {name: told_of_vendors(name, value) for name, value in before.items()}
    settle(kube, with_vendors(maps), told, renamed(NVIDIA.count))
    yield
    settle(kube, maps, before, NVIDIA.count)
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
        wait_until(lambda: unbound(kube, namespace, "one"), 120)
        assert plugin.allocate(namespace, "one") == granted
        kube.wait_running(namespace, "one")
        kube.create(pod("two", namespace, work))
        wait_until(lambda: unbound(kube, namespace, "two"), 120)
        assert plugin.allocate(namespace, "two") == granted
        kube.wait_running(namespace, "two")
        kube.create(pod("big", namespace, container("c", {family.count: "2"}, "sleep 1")))
        wait_until(lambda: told(kube, namespace), 120)
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
    said = kube.said(namespace, "big")
    return None if "no available node" in said else f"a reason: {said}"


def test_renamed_resources(kube, namespace, vendors, audit):
    """Webhook, scheduler, plugin and quota go by the names of device-config.yaml."""
    memory = renamed(NVIDIA.memory)
    hard = {f"limits.{memory}": "3000"}
    kind = {"apiVersion": "v1", "kind": "ResourceQuota"}
    kube.create({**kind, "metadata": {"name": "q", "namespace": namespace}, "spec": {"hard": hard}})
    # No count: the webhook knows that memory alone means one card.
    kube.create(pod("one", namespace, container("c", {memory: "2000"})))
    kube.wait_running(namespace, "one")
    (found,) = kube.pods(namespace)
    assert found["spec"]["containers"][0]["resources"]["limits"][renamed(NVIDIA.count)] == "1"
    assert ",NVIDIA,2000," in found["metadata"]["annotations"][names.POD_DEVICES_ALLOCATED]
    kube.create(pod("two", namespace, container("c", {memory: "2000"})))

    def refused():
        said = kube.said(namespace, "two")
        return None if "ResourceQuotaNotFit" in said else f"the quota's refusal in {said!r}"

    wait_until(refused, 60)
    assert "3000" in kube.refusal(pod("three", namespace, container("c", {memory: "4000"})))
    assert audit() == []
