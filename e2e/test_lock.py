"""Nodes without late binding: HAMi's lock protocol between our scheduler and our plugin."""

import base64
import json
from pathlib import Path

import pytest

from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of
from e2e.report import wait_agreement

pytestmark = pytest.mark.cluster
NODE = "hami-worker"
SYSTEM = ("-n", "hami-system")
LOCK = "hami.io/mutex.lock"
CHECKPOINT = "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"
RIGHTS = Path(__file__).parents[1] / "deploy" / "features" / "lock-protocol" / "cluster-role.yaml"
PODS = [f"p{number}" for number in range(5)]


def annotations(kube):
    """What the worker says."""
    return kube.get("node", NODE)["metadata"]["annotations"]


def roll(kube, kind, name):
    """Wait until the new pods of a workload are there."""
    kube.kubectl("rollout", "status", kind, name, *SYSTEM, "--timeout=240s")


def announced(kube, binding):
    """None once the worker announces this protocol."""
    found = annotations(kube).get("hami.io/node-nvidia-binding")
    return None if found == binding else f"{binding}, not {found}"


def restart_plugins(kube):
    """Let the plugins read their settings anew."""
    kube.kubectl("rollout", "restart", "daemonset", "hami-device-plugin", *SYSTEM)
    roll(kube, "daemonset", "hami-device-plugin")


@pytest.fixture(scope="module")
def lock_protocol(kube):
    """The feature, switched on for every node and off again afterwards."""
    config = kube.get("configmap", "hami-device-config", *SYSTEM)["data"]
    (key,) = config
    chosen = config[key].replace("nvidia:\n", "nvidia:\n  binding: lock\n", 1)
    flag = [
        {
            "op": "add",
            "path": "/spec/template/spec/containers/1/args/-",
            "value": "--lock-protocol",
        }
    ]
    kube.kubectl("apply", "-f", str(RIGHTS))
    settle = ("patch", "configmap", "hami-device-config", *SYSTEM, "--type=merge", "-p")
    kube.kubectl(*settle, json.dumps({"data": {key: chosen}}))
    patch = ("patch", "deployment", "hami-scheduler", *SYSTEM, "--type=json", "-p")
    kube.kubectl(*patch, json.dumps(flag))
    restart_plugins(kube)
    roll(kube, "deployment", "hami-scheduler")
    wait_until(lambda: announced(kube, "lock"), 120)
    yield
    kube.kubectl("rollout", "undo", "deployment", "hami-scheduler", *SYSTEM)
    kube.kubectl(*settle, json.dumps({"data": config}))
    restart_plugins(kube)
    roll(kube, "deployment", "hami-scheduler")
    kube.kubectl("delete", "-f", str(RIGHTS))
    wait_until(lambda: announced(kube, "late"), 120)


def test_one_after_the_other(kube, lock_protocol, namespace, audit):
    """Pods that come at once all run with what they were granted, and no lock is left."""
    where = {"kubernetes.io/hostname": NODE}
    asked = container("c", slice_of(memory=3000, cores=10))
    kube.create(*(pod(name, namespace, asked, nodeSelector=where) for name in PODS))
    kube.wait_running(namespace, *PODS, seconds=180)
    for found in kube.pods(namespace):
        meta = found["metadata"]
        assert meta["annotations"]["hami.io/bind-phase"] == "success"
        assert meta["labels"]["hami.io/vgpu-node"] == NODE

    def unlocked():
        return f"lock {annotations(kube)[LOCK]}" if LOCK in annotations(kube) else None

    wait_until(unlocked, 30)
    assert audit() == []


def answers(kube, uid):
    """What the plugin answered kubelet for the containers of a pod."""
    data = json.loads(kube.node(NODE, "cat", CHECKPOINT))["Data"]["PodDeviceEntries"]
    return [base64.b64decode(entry["AllocResp"]) for entry in data if entry["PodUID"] == uid]


@pytest.fixture
def by_annotations(kube, lock_protocol):
    """HAMi's device list strategy of this name, on every node."""
    settle = ("set", "env", "daemonset/hami-device-plugin", *SYSTEM)
    kube.kubectl(*settle, "DEVICE_LIST_STRATEGY=cdi-annotations")
    roll(kube, "daemonset", "hami-device-plugin")
    yield
    kube.kubectl(*settle, "DEVICE_LIST_STRATEGY-")
    roll(kube, "daemonset", "hami-device-plugin")


def test_cards_that_are_named_in_annotations(kube, by_annotations, namespace):
    """Kubelet hands them to the runtime, which finds the cards by them."""
    asked = container("c", slice_of(memory=3000, cores=10))
    kube.create(pod("p", namespace, asked, nodeSelector={"kubernetes.io/hostname": NODE}))
    kube.wait_running(namespace, "p")
    (found,) = kube.pods(namespace)
    wait_agreement(kube, namespace, [found])
    (answer,) = answers(kube, found["metadata"]["uid"])
    assert b"cdi.k8s.io/nvidia-device-plugin_" in answer
    assert b"nvidia.com/gpu=" in answer
