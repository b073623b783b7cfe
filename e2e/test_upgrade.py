"""A planned restart of any workload while pods are being created: nobody notices."""

import os

import pytest

from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of
from e2e.report import wait_agreement

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
SYSTEM = "hami-system"
PODS = 24
UPGRADES = int(os.environ.get("UPGRADES", "1"))  # in a row, each with PODS pods of its own
WORKLOADS = (
    "daemonset/hami-device-plugin",
    "daemonset/hami-core",
    "deployment/hami-scheduler",
)  # the webhook: test_operations.py, under more creations than these


def fresh(index, namespace):
    """A bare pod: nobody replaces it when it fails."""
    asked = container("c", slice_of(memory=1000 + index, cores=1 + index % 4))
    return pod(
        f"p{index}", namespace, asked, nodeSelector={"kubernetes.io/hostname": "hami-worker"}
    )


def restarts(pods):
    """The pods that are not as they were created: failed, or with a container started anew."""
    return {
        p["metadata"]["name"]: p["status"]["phase"]
        for p in pods
        if p["status"]["phase"] == "Failed"
        or any(c["restartCount"] for c in p["status"].get("containerStatuses", []))
    }


@pytest.mark.parametrize("turn", range(UPGRADES))
@pytest.mark.parametrize("workload", WORKLOADS)
def test_upgrade_under_creations(kube, namespace, audit, workload, turn):
    """No creation is refused, no pod fails, the running pod runs on, all have their own slice."""
    kube.create(fresh(PODS, namespace))
    kube.wait_running(namespace, f"p{PODS}")
    kube.kubectl("rollout", "restart", workload, "-n", SYSTEM)
    created = []

    def unfinished():
        # One more pod at each look, so that creations fall into every phase of the roll-out.
        if len(created) < PODS:
            kube.create(fresh(len(created), namespace))
            created.append(f"p{len(created)}")
        state = kube.kubectl("rollout", "status", workload, "-n", SYSTEM, "--watch=false")
        return None if "successfully rolled out" in state else state

    wait_until(unfinished, 240)
    assert len(created) >= 3, "the roll-out was over before pods were created in it"
    kube.wait_running(namespace, *created, seconds=180)
    pods = kube.pods(namespace)
    assert restarts(pods) == {}
    wait_agreement(kube, namespace, pods)
    assert audit() == []
