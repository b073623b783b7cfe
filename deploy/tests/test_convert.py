"""From HAMi's chart to an overlay of ours: everything is carried over or told."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deploy.convert import table
from deploy.convert.__main__ import base, main
from deploy.convert.overlay import convert, flat

DOCS = Path(__file__).parents[2] / "docs" / "compatibility.md"
VALUES = """
schedulerName: gpu-scheduler
resourceName: example.com/gpu
global: {imageTag: v2.10.0}
scheduler:
  replicas: 2
  overwriteEnv: "true"
  forceOverwriteDefaultScheduler: false
  defaultSchedulerPolicy: {nodeSchedulerPolicy: spread, gpuSchedulerPolicy: topology-aware}
  admissionWebhook: {whitelistNamespaces: [gpu-operator], failurePolicy: Ignore}
  certManager: {enabled: false}
devicePlugin:
  deviceMemoryScaling: 1.5
  nvidiaNodeSelector: {card: "yes"}
  nodeConfiguration:
    config: |
      {"nodeconfig": [{"name": "n1", "devicesplitcount": 4}]}
devices:
  nvidia: {gpuCorePolicy: force}
  ascend: {enabled: true}
"""


@pytest.fixture
def written(tmp_path, capsys):
    """Convert a file as a person does; the folder, the exit code and what was said."""

    def make(text):
        path = tmp_path / "values.yaml"
        path.write_text(text)
        folder = tmp_path / "overlay"
        code = main([str(path), str(folder)])
        return folder, code, capsys.readouterr().out

    return make


def objects(folder):
    """What kubectl makes of an overlay."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl renders the manifests; install it")
    command = ["kubectl", "kustomize", str(folder)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [json.loads(json.dumps(o)) for o in YAML(typ="safe").load_all(text)]
    return {(o["kind"], o["metadata"]["name"]): o for o in found}


def env(workload, container):
    """A container's variables."""
    spec = workload["spec"]["template"]["spec"]
    every = [*spec.get("initContainers", []), *spec["containers"]]
    [found] = [c for c in every if c["name"] == container]
    return {e["name"]: e.get("value") for e in found.get("env", [])}


def test_a_whole_file(written):
    """Each value has reached its place, and the settings can be used."""
    folder, code, said = written(VALUES)
    assert code == 0
    found = objects(folder)
    config = found["ConfigMap", "hami-device-config"]["data"]["device-config.yaml"]
    section = YAML(typ="safe").load(config)["nvidia"]
    assert section["resourceCountName"] == "example.com/gpu"
    assert section["resourceMemoryName"] == "nvidia.com/gpumem"
    assert (section["overwriteEnv"], section["deviceMemoryScaling"]) == (True, 1.5)
    assert section["gpuCorePolicy"] == "force"
    kube = YAML(typ="safe").load(found["ConfigMap", "hami-kube-scheduler"]["data"]["config.yaml"])
    assert kube["profiles"][0]["schedulerName"] == "gpu-scheduler"
    managed = [each["name"] for each in kube["extenders"][0]["managedResources"]]
    assert managed[:2] == ["example.com/gpu", "nvidia.com/gpumem"]
    webhook = found["Deployment", "hami-webhook"]
    assert env(webhook, "webhook")["SCHEDULER_NAME"] == "gpu-scheduler"
    assert env(webhook, "webhook")["FORCE_OVERWRITE_DEFAULT_SCHEDULER"] == "false"
    assert env(webhook, "certificates")["ENABLE_ASCEND"] == "true"
    assert env(webhook, "certificates")["SELF_SIGNED"] == "true"
    assert webhook["spec"]["replicas"] == 2
    extender = env(found["Deployment", "hami-scheduler"], "extender")
    assert extender["HAMI_NODE_SCHEDULER_POLICY"] == "spread"
    assert extender["HAMI_GPU_SCHEDULER_POLICY"] == "topology-aware"
    plugin = found["DaemonSet", "hami-device-plugin"]
    assert env(plugin, "device-plugin")["NODE_CONFIG_FILE"] == "/etc/hami-node/config.json"
    assert env(plugin, "device-plugin")["ENABLE_TOPOLOGY_SCORE"] == "true"
    assert "n1" in found["ConfigMap", "hami-node-config"]["data"]["config.json"]
    for name in ("hami-core", "hami-device-plugin", "hami-monitor"):
        selector = found["DaemonSet", name]["spec"]["template"]["spec"]["nodeSelector"]
        assert selector == {"card": "yes"}
    registration = found["MutatingWebhookConfiguration", "hami-webhook"]["webhooks"]
    assert len(registration) == 2
    spared = registration[0]["namespaceSelector"]["matchExpressions"][1]["values"]
    assert spared == ["kube-system", "hami-system", "gpu-operator"]
    assert "global.imageTag: not carried over; our images" in said
    assert "failurePolicy: not carried over; Fail" in said
    assert len(said.splitlines()) == 2


def test_nothing_makes_the_plain_overlay(written):
    """As deploy/overlays/local."""
    folder, code, said = written("")
    assert (code, said, [path.name for path in folder.iterdir()]) == (0, "", ["kustomization.yaml"])
    objects(folder)


def test_the_settings_as_a_whole_win(written):
    """As in the chart; the single values are told."""
    content = "device-config:\n  content: |\n    nvidia:\n      resourceCountName: x.io/gpu\n"
    folder, code, said = written(f"resourceMem: y.io/mem\n{content}")
    assert code == 0
    config = objects(folder)["ConfigMap", "hami-device-config"]["data"]["device-config.yaml"]
    assert YAML(typ="safe").load(config) == {"nvidia": {"resourceCountName": "x.io/gpu"}}
    assert "resourceMem: not carried over; the chart takes device-config.content alone" in said


def test_settings_that_cannot_be_used_are_told(written):
    """With code 2, so that a pipeline stops."""
    _, code, said = written("devicePlugin: {deviceMemoryScaling: -1}")
    assert code == 2
    assert "nvidia.deviceMemoryScaling" in said


def test_cert_manager_takes_the_place_of_our_own_certificate():
    """Never both."""
    values = {"scheduler": {"certManager": {"enabled": True}}, "prometheus": {"enabled": True}}
    made = convert(values, base(), "../..")
    components = YAML(typ="safe").load(made.files["kustomization.yaml"])["components"]
    names = [path.rsplit("/", 1)[1] for path in components]
    assert names == ["cert-manager", "monitoring", "release"]


def test_a_value_that_nobody_knows_is_told():
    """A slip of the pen must not pass for a setting."""
    made = convert({"devicePlugin": {"deviceSplitCont": 3}}, base(), "../..")
    assert made.notes == [
        "devicePlugin.deviceSplitCont: not carried over; the chart has no such value"
    ]


# Every value of the chart, version 2.10.0, that is not one of an image or of a vendor's names.
CHART = """
global.gpuHookPath global.labels global.annotations global.managedNodeSelectorEnable
global.managedNodeSelector.usage nameOverride fullnameOverride namespaceOverride resourceName
resourceMem resourceMemPercentage resourceCores resourcePriority mluResourceName dcuResourceMem
metaxResourceCore enflameResourceNameDRSGCU kunlunResourceName vastaiResourceName birenResourceName
schedulerName podSecurityPolicy.enabled scheduler.nodeName scheduler.nodeLabelSelector
scheduler.overwriteEnv scheduler.defaultSchedulerPolicy.nodeSchedulerPolicy
scheduler.metricsBindAddress scheduler.forceOverwriteDefaultScheduler scheduler.livenessProbe
scheduler.leaderElect scheduler.replicas scheduler.kubeScheduler.enabled
scheduler.kubeScheduler.image.tag scheduler.extender.extraArgs scheduler.nodeLockExpire
scheduler.podAnnotations scheduler.tolerations scheduler.admissionWebhook.enabled
scheduler.admissionWebhook.customURL.host scheduler.admissionWebhook.whitelistNamespaces
scheduler.admissionWebhook.manageNamespaceSelector
scheduler.admissionWebhook.namespaceSelector.matchLabels
scheduler.admissionWebhook.objectSelector.matchExpressions
scheduler.admissionWebhook.reinvocationPolicy scheduler.certManager.enabled scheduler.patch.enabled
scheduler.service.httpPort devicePlugin.enabled devicePlugin.gpuOperatorToolkitReady.enabled
devicePlugin.image.tag devicePlugin.monitor.ctrPath devicePlugin.deviceSplitCount
devicePlugin.nodeConfiguration.config devicePlugin.nodeConfiguration.externalConfigName
devicePlugin.runtimeClassName devicePlugin.createRuntimeClass devicePlugin.migStrategy
devicePlugin.disablecorelimit devicePlugin.passDeviceSpecsEnabled devicePlugin.deviceListStrategy
devicePlugin.nvidiaHookPath devicePlugin.nvidiaDriverRoot devicePlugin.gdrcopyEnabled
devicePlugin.gdsEnabled devicePlugin.mofedEnabled devicePlugin.extraArgs devicePlugin.extraEnvs
devicePlugin.service.type devicePlugin.pluginPath devicePlugin.libPath devicePlugin.podAnnotations
devicePlugin.hostPID devicePlugin.hostNetwork devicePlugin.securityContext
devicePlugin.nvidiaNodeSelector devicePlugin.tolerations devicePlugin.updateStrategy
devicePlugin.resources mockDevicePlugin.enabled devices.amd.customresources devices.mthreads.enabled
devices.nvidia.gpuCorePolicy devices.nvidia.libCudaLogLevel devices.ascend.enabled
devices.iluvatar.enabled legacyMetrics prometheus.enabled device-config.content
"""


@pytest.mark.parametrize("key", CHART.split())
def test_every_value_of_the_chart_is_in_the_table(key):
    """Carried over, or with the reason why not."""
    known = {*table.CONFIG, *table.ENV, *table.FEATURES, *table.SPECIAL}
    assert key in known or table.reason(key)


def test_the_page_has_the_table(capsys):
    """Printed by --table, so it cannot say anything else."""
    assert main(["--table"]) == 0
    assert capsys.readouterr().out in DOCS.read_text(encoding="utf-8")


def test_maps_that_are_taken_whole_stay_whole():
    """A node selector is one value."""
    values = {"devicePlugin": {"nvidiaNodeSelector": {"a": "b"}, "image": {"tag": "x"}}}
    assert dict(flat(values)) == {
        "devicePlugin.nvidiaNodeSelector": {"a": "b"},
        "devicePlugin.image.tag": "x",
    }
