"""Hundreds of pods started and ended on two nodes, while what carries them is killed at random."""

import os
import random
import subprocess
import threading

import pytest

from e2e.kills import BORNE, by_admission, forgiven, kill
from e2e.kube import phase, wait_until
from e2e.pods import ON_AN_A100, REPORT, container, pod, slice_of
from e2e.report import differences

WAVES = int(os.environ.get("WAVES", "10"))
SEED = int(os.environ.get("WAVES_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
pytestmark = [pytest.mark.soak, pytest.mark.timeout(600 + 420 * WAVES)]
PODS, GRACE_S = 24, 360
VICTIMS = ("kubelet", "containerd", "device-plugin", "api-server")
# What a pod leaves on its node, until it is swept.
LEFT = "ls -d /run/cdi/hami.io-vgpu_* /usr/local/vgpu/grants/* /usr/local/vgpu/containers/*"


def different(index, name, namespace):
    """Pod number `index`: init and app container ask differently, and like no other pod's.

    Every third one is free to go to either node, every fourth one uses its node's network.
    """
    init = container("init", slice_of(memory=700 + 30 * index, cores=1 + index % 5), REPORT)
    app = container("app", slice_of(memory=1000 + 50 * index, cores=1 + index % 9))
    where = {} if index % 3 == 0 else {"nodeSelector": ON_AN_A100}
    shared = {"hostNetwork": True} if index % 4 == 0 else {}
    return pod(name, namespace, app, initContainers=[init], **where, **shared)


def doom(kube, wave):
    """Who is killed in a wave, ready to be started again at once, and how many seconds into it."""
    chance = random.Random(f"{SEED} {wave}")
    victim, moment = chance.choice(VICTIMS), chance.uniform(0, 8)
    if wave >= BORNE:
        forgiven(kube, victim)
    return victim, moment


class Wave:
    """Pods by their number; one that kubelet's own admission failed is replaced by another."""

    def __init__(self, kube, namespace, number):
        self.kube, self.namespace, self.number = kube, namespace, number
        self.names = {index: f"w{number}-{index}" for index in range(PODS)}
        self.replaced = 0

    def create(self):
        """All at once."""
        pods = (different(i, name, self.namespace) for i, name in self.names.items())
        self.kube.create(*pods)

    def pods(self):
        """Those of this wave that count."""
        mine = set(self.names.values())
        found = self.kube.pods(self.namespace)
        return [p for p in found if p["metadata"]["name"] in mine]

    def missing(self):
        """None once all run and are ready; the API server may be away meanwhile."""
        try:
            found = {p["metadata"]["name"]: p for p in self.pods()}
            for index, name in list(self.names.items()):
                if phase(found.get(name)) == "Failed":
                    self.replace(index, found[name])
            waiting = {name: phase(found.get(name)) for name in self.names.values()}
        except (subprocess.SubprocessError, ValueError) as error:
            return f"an answer of the API server: {error}"
        waiting = {name: state for name, state in waiting.items() if state != "Running"}
        return f"pods that run: {waiting}" if waiting else None

    def replace(self, index, failed):
        """Kubelet fails what it admits while no plugin is registered; nobody else may."""
        assert by_admission(failed), failed["status"]
        name = f"{self.names[index]}r"
        self.kube.create(different(index, name, self.namespace))
        self.names[index] = name
        self.replaced += 1

    def end(self):
        """All pods of the wave, failed ones too."""
        where = ("-n", self.namespace)
        self.kube.kubectl("delete", "pod", "--all", *where, "--now", "--timeout=200s")


def left(kube):
    """What pods left on the nodes, or None."""
    found = {node: kube.node(node, "sh", "-c", LEFT, check=False).split() for node in kube.nodes}
    found = {node: files for node, files in found.items() if files}
    return f"the sweep of {found}" if found else None


def test_none_is_lost_and_none_has_anothers_slice(kube, namespace, audit):
    """Each container of each pod reports its own grant; afterwards nothing is left of any."""
    told = []
    for number in range(WAVES):
        wave = Wave(kube, namespace, number)
        victim, moment = doom(kube, number)
        wave.create()
        threading.Event().wait(moment)  # the moment itself is what this test varies
        kill(kube, victim)
        wait_until(wave.missing, GRACE_S)
        # A report that is not there yet is of a container whose end kubelet has not told yet.
        wait_until(
            lambda wave=wave: "\n".join(differences(kube, namespace, wave.pods())) or None, 60
        )
        assert audit() == []
        told.append((victim, wave.replaced))
        print(f"seed {SEED}, wave {number}: {victim} killed, {wave.replaced} pods replaced")
        wave.end()
    print(f"{WAVES * PODS} pods, failed by kubelet's own admission: {sum(n for _, n in told)}")
    wait_until(lambda: left(kube), 150)
    assert audit() == []
