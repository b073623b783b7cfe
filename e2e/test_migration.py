"""From HAMi to here, node by node, as docs/operations.md says.

What HAMi's scheduler granted is written by the test, as HAMi writes it. HAMi's plugin is played by
ours, under another account and in the lock protocol, which is HAMi's.
"""

import pytest

from e2e import product
from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of
from e2e.procedures import follow
from e2e.report import wait_agreement
from e2e.skew.versions import rendered, with_image

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
HAMI = "kube-system"
WORKER, OTHER = "hami-worker", "hami-control-plane"
PLACED = "hami.io/vgpu-node"
BINDING = "hami.io/node-nvidia-binding"
OLD = {
    "HAMI_NAMESPACE": HAMI,
    "HAMI_SCHEDULER": "of-old-scheduler",
    "HAMI_REGISTRATION": "of-old-webhook",
}


def plugin_of_hami(kube):
    """Our plugin as if it was HAMi's: in another namespace, with the lock protocol."""
    image = product.tagged("hami-device-plugin")
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "hami-device-config", "namespace": HAMI},
        "data": {"device-config.yaml": "nvidia:\n  binding: lock\n"},
    }
    found = [config]
    for obj in rendered(kube, product.ROOT / "deploy/base/device-plugin"):
        if obj["kind"] in ("ServiceAccount", "DaemonSet"):
            obj["metadata"]["namespace"] = HAMI
            found.append(with_image(obj, "hami-device-plugin", image))
    return found + [rights(role) for role in ("hami-device-plugin", "hami-device-plugin-lock")]


def rights(role):
    """A role of our plugin's for HAMi's."""
    group = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": "hami-device-plugin", "namespace": HAMI}
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"of-old-{role}"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [account],
    }


def scheduler_of_hami():
    """Its Deployment and registration, by their names only: neither does anything."""
    labels = {"app.kubernetes.io/component": "hami-scheduler"}
    template = pod("x", HAMI, container("c", {}, "exec sleep 100000"))
    rule = {"apiGroups": ["nobody.example"], "apiVersions": ["v1"], "operations": ["CREATE"]}
    url = {"service": {"name": "nobody", "namespace": HAMI}}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "of-old-scheduler", "namespace": HAMI},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "of-old-webhook"},
            "webhooks": [
                {
                    "name": "vgpu.hami.io",
                    "admissionReviewVersions": ["v1"],
                    "clientConfig": url,
                    "rules": [{**rule, "resources": ["nothing"]}],
                    "failurePolicy": "Ignore",
                    "sideEffects": "None",
                }
            ],
        },
    ]


@pytest.fixture
def with_hami(kube, without_grant_policy):
    """A cluster on which HAMi runs and nothing of ours on the nodes; ours as ever, afterwards."""
    kube.kubectl("delete", "daemonset", "-n", "hami-system", *product.DAEMONS)
    for name in product.DAEMONS:
        wait_until(lambda name=name: pods_of(kube, name), 90)
    lock_rights = product.ROOT / "deploy/features/lock-protocol/cluster-role.yaml"
    kube.kubectl("apply", "-f", str(lock_rights))
    # The limiter is the same one; HAMi's plugin would bring it along.
    kube.apply(*plugin_of_hami(kube), *scheduler_of_hami())
    for node in kube.nodes:
        wait_until(lambda node=node: announced(kube, node, "lock"), 90)
    yield
    for kind, name in (("daemonset", "hami-device-plugin"), ("deployment", "of-old-scheduler")):
        kube.kubectl("delete", kind, name, "-n", HAMI, "--ignore-not-found")
    names = ("of-old-hami-device-plugin", "of-old-hami-device-plugin-lock")
    kube.kubectl("delete", "clusterrolebinding", *names, "--ignore-not-found")
    kube.kubectl("delete", "mutatingwebhookconfiguration", "of-old-webhook", "--ignore-not-found")
    left = ("serviceaccount/hami-device-plugin", "configmap/hami-device-config")
    kube.kubectl("delete", "-n", HAMI, *left, "--ignore-not-found")
    kube.kubectl("uncordon", *kube.nodes)
    product.install()


def pods_of(kube, name):
    """What is left of one of our programs on the nodes."""
    selector = ("-l", f"app.kubernetes.io/name={name}")
    found = kube.get("pods", "-n", "hami-system", *selector)["items"]
    return f"the end of {name}" if found else None


def announced(kube, node, binding):
    """None once a node announces this protocol."""
    found = kube.get("node", node)["metadata"]["annotations"].get(BINDING)
    return None if found == binding else f"{node}: {binding}, not {found}"


def granted_by_hami(namespace, card, memory):
    """A pod that HAMi's scheduler placed: its annotations and its label, none of ours."""
    grant = f"{card},NVIDIA,{memory},10:;"
    found = pod("old", namespace, container("c", {}, "exec sleep 1000"))
    found["metadata"] |= {
        "labels": {PLACED: WORKER},
        "annotations": {
            PLACED: WORKER,
            "hami.io/vgpu-time": "1700000000",
            "hami.io/bind-time": "1700000000",
            "hami.io/bind-phase": "success",
            "hami.io/vgpu-devices-to-allocate": ";",
            "hami.io/vgpu-devices-allocated": grant,
        },
    }
    found["spec"] |= {"nodeName": WORKER, "schedulerName": "hami-scheduler"}
    return found


def asking(name, namespace, memory, node, **annotations):
    """A pod of a user's for one node."""
    asked = container("c", slice_of(memory=memory))
    where = {"kubernetes.io/hostname": node}
    return pod(name, namespace, asked, nodeSelector=where, annotations=annotations)


def by_lock(kube, namespace, name):
    """Whether a pod was placed by HAMi's lock protocol: only that one labels it."""
    [found] = [p for p in kube.pods(namespace) if p["metadata"]["name"] == name]
    return PLACED in found["metadata"]["labels"]


def test_a_cluster_moves_over_node_by_node(kube, cards, with_hami, namespace, audit):
    """Scheduler first: one account of all cards, each node by its own protocol, nothing is lost."""
    card = {"nvidia.com/use-gpuuuid": cards[WORKER][0]["id"]}
    room = cards[WORKER][0]["devmem"] - 30000
    kube.create(granted_by_hami(namespace, cards[WORKER][0]["id"], 30000))
    kube.wait_running(namespace, "old")
    follow(kube, "migrate-scheduler", **OLD)

    kube.create(asking("fits", namespace, 3000, WORKER, **card))
    kube.wait_running(namespace, "fits")
    kube.create(asking("waits", namespace, room, WORKER, **card))
    assert by_lock(kube, namespace, "fits")

    def told():
        said = kube.said(namespace, "waits")
        return None if str(room - 3000) in said else f"{room - 3000} MiB in {said!r}"

    wait_until(told, 120)
    follow(kube, "migrate-node", NODE=WORKER)
    kube.create(asking("other", namespace, 1000, OTHER))
    kube.wait_running(namespace, "waits", "other")
    assert (by_lock(kube, namespace, "waits"), by_lock(kube, namespace, "other")) == (False, True)

    follow(kube, "migrate-node", NODE=OTHER)
    kube.kubectl("delete", "daemonset", "hami-device-plugin", "-n", HAMI)
    follow(kube, "migrate-end")
    kube.create(asking("after", namespace, 1000, OTHER))
    kube.wait_running(namespace, "after", "waits")
    assert not by_lock(kube, namespace, "after")
    wait_agreement(kube, namespace)
    assert audit() == []
