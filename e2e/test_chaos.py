"""kill -9 of anything while pods are being created: no pod is lost, no card is over-committed."""

import os
import random
import subprocess
import threading

import pytest

from e2e.kills import BORNE, VICTIMS, by_admission, forgiven, kill
from e2e.kube import Deadline, wait_until
from e2e.pods import container, deployment, pod, slice_of
from e2e.report import differences

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
REPLICAS = 8
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)

INSTALLED = [victim for victim in VICTIMS if victim != "mig-manager"]
"""The feature mig has a soak of its own, with deaths at every step (test_mig)."""
WITHOUT_PLUGIN = ("kubelet", "device-plugin")


def settled(pods):
    """Whether all replicas run; pods that kubelet failed while no plugin was registered aside."""
    running = [p for p in pods if p["status"].get("phase") == "Running" and ready(p)]
    return None if len(running) == REPLICAS else f"{len(running)} of {REPLICAS} replicas run"


def alive(kube, namespace):
    """The pods that run."""
    return [p for p in kube.pods(namespace) if p["status"].get("phase") == "Running"]


def ready(found):
    """Whether all containers of a pod are ready."""
    return all(c.get("ready") for c in found["status"].get("containerStatuses", [{}]))


@pytest.mark.parametrize("victim", INSTALLED)
@pytest.mark.parametrize("turn", range(ROUNDS))
def test_killed_at_any_moment(kube, namespace, audit, victim, turn):
    """All replicas run with the right limits; only kubelet's own admission may fail a pod."""
    moment = random.Random(f"{SEED} {victim} {turn}").uniform(0, 2)
    if turn >= BORNE:
        forgiven(kube, victim)
    print(f"seed {SEED}: {victim} is killed after {moment:.2f} s")
    asked = container("c", slice_of(memory=1100 + turn, cores=7))
    template = pod("t", namespace, asked, nodeSelector={"kubernetes.io/hostname": "hami-worker"})
    kube.create(deployment("work", namespace, REPLICAS, template))
    threading.Event().wait(moment)  # the moment itself is what this test varies
    kill(kube, victim)

    def missing():
        try:
            return settled(kube.pods(namespace))
        except (subprocess.SubprocessError, ValueError) as error:
            return f"an answer of the API server: {error}"

    try:
        wait_until(missing, 300)
    except Deadline as late:
        state = kube.kubectl("get", "pods,events", "-n", namespace, "-o", "wide", check=False)
        raise AssertionError(f"{late}\n{state[-4000:]}") from late
    pods = kube.pods(namespace)
    failed = [p for p in pods if p["status"].get("phase") == "Failed"]
    # kubelet itself fails what it admits while no plugin is registered; its replacement runs.
    print(f"{victim}: {len(failed)} pods failed by kubelet's own admission")
    borne = [p for p in failed if victim in WITHOUT_PLUGIN and by_admission(p)]
    assert [p["status"] for p in failed if p not in borne] == []
    # A wrong report stays; one that is not there yet is of a container whose end kubelet has not
    # told yet.
    wait_until(lambda: "\n".join(differences(kube, namespace, alive(kube, namespace))) or None, 120)
    assert audit() == []
