"""A pod asks for a slice and gets exactly it."""

import json

import pytest

from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of
from e2e.report import granted, wait_agreement

pytestmark = pytest.mark.cluster
MIB = 1024 * 1024


def on_card(uuid):
    """Annotations that tie a pod to one card."""
    return {"nvidia.com/use-gpuuuid": uuid}


def test_two_pods_share_a_card_and_a_third_waits_with_a_reason(kube, namespace, cards):
    """The third is told which card lacks what, and takes the place of the first one deleted."""
    card = cards["hami-worker"][0]
    third = card["devmem"] - 2 * 3000 + 1000
    for name, memory in (("one", 3000), ("two", 3000)):
        asked = slice_of(memory=memory, cores=30)
        kube.create(pod(name, namespace, container("c", asked), annotations=on_card(card["id"])))
    kube.wait_running(namespace, "one", "two")
    kube.create(
        pod(
            "three",
            namespace,
            container("c", slice_of(memory=third)),
            annotations=on_card(card["id"]),
        )
    )

    def explained():
        said = kube.said(namespace, "three")
        wanted = (card["id"], str(third), str(card["devmem"] - 6000))
        return None if all(w in said for w in wanted) else f"{wanted} in {said!r}"

    wait_until(explained, 60)
    kube.kubectl("delete", "pod", "-n", namespace, "one")
    kube.wait_running(namespace, "two", "three", seconds=180)
    assert {granted(p)[0][0].uuid for p in kube.pods(namespace)} == {card["id"]}


def test_the_container_sees_its_slice(kube, namespace):
    """Driver, NVML and nvidia-smi all show 3000 MiB, and the grant says the same."""
    kube.create(pod("view", namespace, container("c", slice_of(memory=3000, cores=30))))
    kube.wait_running(namespace, "view")
    wait_agreement(kube, namespace)
    query = ("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    assert kube.exec(namespace, "view", "nvidia-smi", *query).split() == ["3000"]


def test_allocation_past_the_slice_fails_and_the_pod_lives_on(kube, namespace):
    """The driver's own error is returned; nothing is killed."""
    asked = slice_of(memory=3000)
    kube.create(pod("big", namespace, container("c", asked)))
    kube.wait_running(namespace, "big")
    answer = json.loads(kube.exec(namespace, "big", "cuprobe", "alloc", "1000", "2500"))
    results = [a["result"] for a in answer["allocations"]]
    assert results == ["CUDA_SUCCESS", "CUDA_ERROR_OUT_OF_MEMORY"]
    restarts = kube.pods(namespace)[0]["status"]["containerStatuses"][0]["restartCount"]
    assert restarts == 0


@pytest.mark.parametrize("form", ["unset", "loosened"])
def test_environment_changes_nothing(kube, namespace, form):
    """Neither unsetting variables nor HAMi's loosening ones lift the limit."""
    loose = {
        "CUDA_DISABLE_CONTROL": "true",
        "GPU_CORE_UTILIZATION_POLICY": "disable",
        "CUDA_DEVICE_MEMORY_LIMIT_0": "30000m",
        "LD_PRELOAD": "",
    }
    env = [{"name": k, "value": v} for k, v in loose.items()] if form == "loosened" else []
    kube.create(pod("loose", namespace, container("c", slice_of(memory=3000), env=env)))
    kube.wait_running(namespace, "loose")
    clean = ["env", "-i", "PATH=/usr/bin:/bin"] if form == "unset" else []
    answer = json.loads(kube.exec(namespace, "loose", *clean, "cuprobe", "alloc", "4000"))
    assert [a["result"] for a in answer["allocations"]] == ["CUDA_ERROR_OUT_OF_MEMORY"]


def test_a_container_that_restarts_keeps_its_slice(kube, namespace):
    """The second run of a container reports what the first one did."""
    kube.create(pod("again", namespace, container("c", slice_of(memory=2100, cores=20))))
    kube.wait_running(namespace, "again")
    before = granted(kube.pods(namespace)[0])
    kube.exec(namespace, "again", "sh", "-c", "kill 1", check=False)

    def restarted():
        status = kube.pods(namespace)[0]["status"]["containerStatuses"][0]
        running = status["restartCount"] == 1 and "running" in status["state"]
        return None if running else f"a second run: {status}"

    wait_until(restarted, 90)
    pods = kube.pods(namespace)
    assert granted(pods[0]) == before
    wait_agreement(kube, namespace, pods)


def test_count_zero_asks_for_nothing(kube, namespace):
    """Such a pod runs without a card and without our scheduler."""
    only = container("c", {"nvidia.com/gpu": "0"}, "ls /dev/nvidia0; sleep 3600")
    kube.create(pod("zero", namespace, only))
    kube.wait_running(namespace, "zero")
    found = kube.pods(namespace)[0]
    assert granted(found) == []
    assert found["spec"]["schedulerName"] == "default-scheduler"
    kube.wait_log(namespace, "zero", "No such file")
