"""Violations planted on the real cluster: the auditor finds them, and nothing else."""

import os
import subprocess

import pytest

from e2e.cards import STATE_IN_ROOT, build_folder
from e2e.kube import wait_until
from e2e.lab import config as lab_config
from e2e.pods import container, pod, slice_of

pytestmark = pytest.mark.cluster
NODE = "hami-worker"
FOLDER = "/usr/local/vgpu/containers"
GRANT = "hami.io/vgpu-devices-allocated"
PODS = ("loosened", "unlimited", "greedy", "elsewhere", "imaginary", "honest")


@pytest.fixture
def stranger():
    """A process of no pod that holds 64 MiB of a card of the node."""
    state = lab_config.load().state / "nodes" / NODE / "driver" / STATE_IN_ROOT
    built = build_folder()
    environment = {"FAKEGPU_STATE": str(state), "FAKEGPU_DEV": "all", "LD_LIBRARY_PATH": str(built)}
    process = subprocess.Popen(
        [str(built / "cuprobe"), "hold", "64", "forever"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert "CUDA_SUCCESS" in process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_finds_all_and_nothing_else(kube, namespace, audit, request):
    """A loosened and a missing control file, three forged grants, and a stranger on a card."""
    where = {"kubernetes.io/hostname": NODE}
    for index, name in enumerate(PODS):
        asked = container("c", slice_of(memory=1000 + 100 * index, cores=5))
        kube.create(pod(name, namespace, asked, nodeSelector=where))
    kube.wait_running(namespace, *PODS)
    assert audit() == []
    request.getfixturevalue("without_grant_policy")
    plant(kube, namespace)
    stranger = request.getfixturevalue("stranger")
    expected = {
        ("control-differs", f"{namespace}/loosened/c"),
        ("no-control-file", f"{namespace}/unlimited/c"),
        ("control-differs", f"{namespace}/greedy/c"),
        ("wrong-node", f"{namespace}/elsewhere"),
        ("unknown-card", f"{namespace}/imaginary"),
        ("control-differs", f"{namespace}/imaginary/c"),
        ("use-without-grant", f"{namespace}/imaginary/c"),
    }
    found = {(v["kind"], v["subject"]) for v in audit()}
    of_cards = {(kind, subject) for kind, subject in found if subject.startswith("GPU-")}
    assert found - of_cards == expected
    assert {kind for kind, _ in of_cards} == {"overcommitted-memory", "use-without-grant"}
    assert any(subject.endswith(f"process {stranger}") for _, subject in of_cards)


def plant(kube, namespace):
    """Change what each of the pods has, on the node or in the API."""
    uids = {p["metadata"]["name"]: p["metadata"]["uid"] for p in kube.pods(namespace)}
    honest, loosened = (f"{FOLDER}/{uids[name]}_c/control" for name in ("honest", "loosened"))
    kube.node(NODE, "sh", "-ec", f"cat {honest} > {loosened}")
    kube.node(NODE, "rm", f"{FOLDER}/{uids['unlimited']}_c/control")
    card = granted(kube, namespace, "greedy").split(",")[0]
    for name, annotation in (
        ("greedy", f"{GRANT}={card},NVIDIA,999999,5:;"),
        ("elsewhere", "hami.io/vgpu-node=hami-control-plane"),
        ("imaginary", f"{GRANT}=GPU-nowhere,NVIDIA,1000,5:;"),
    ):
        wait_until(lambda n=name, a=annotation: refused(kube, namespace, n, a), 30)


def granted(kube, namespace, name):
    """A pod's grant."""
    return kube.get("pod", "-n", namespace, name)["metadata"]["annotations"][GRANT]


def refused(kube, namespace, name, annotation):
    """Policies are forgotten a moment after they are gone; None once the change is accepted."""
    changed = kube.kubectl(
        "annotate", "--overwrite", "pod", "-n", namespace, name, annotation, check=False
    )
    return None if changed else f"{annotation} on {name}"
