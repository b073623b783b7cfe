"""A component at its previous version beside the others: pods of both times have their slices.

`SKEW="webhook=REF hami-core"` chooses components and versions; without it, all of them.
"""

import os

import pytest

from e2e.kube import wait_until
from e2e.metrics import samples, values
from e2e.pods import ON_AN_A100, container, pod, slice_of
from e2e.report import differences
from e2e.skew.instances import with_instances
from e2e.skew.versions import DIVIDING, prepare, refs, running

pytestmark = [pytest.mark.skew, pytest.mark.timeout(900)]
CHOSEN = refs(os.environ.get("SKEW", ""))
MIB = 1024 * 1024


def create(kube, namespace, time):
    """Pods of every form, named after the time of their creation; their names."""
    percent = {"nvidia.com/gpumem-percentage": "10", "nvidia.com/priority": "1"}
    forms = {
        "one": [container("c", slice_of(memory=1500, cores=20))],
        "two": [container("a", slice_of(memory=700)), container("b", percent)],
    }
    first = container("first", slice_of(memory=900), "cuprobe info")
    for name, containers in forms.items():
        kube.create(
            pod(
                f"{time}-{name}",
                namespace,
                *containers,
                initContainers=[first],
                nodeSelector=ON_AN_A100,
            )
        )
    return [f"{time}-{name}" for name in forms]


def right(kube, namespace, audit, names):
    """Every container reports its grant, the monitor and the extender say so too."""
    kube.wait_running(namespace, *names, seconds=150)

    def wrong():
        # The init container has ended, and printed no control file.
        pods = [without_init(p) for p in kube.pods(namespace)]
        return "\n".join(differences(kube, namespace, pods)) or None

    wait_until(wrong, 60)
    who = {"namespace": namespace, "pod": names[0]}

    def unseen():
        limits = values(samples(kube, "hami-monitor", 9394), "hami_vgpu_memory_limit_bytes", **who)
        extender = samples(kube, "hami-scheduler", 9395)
        # The init container's grant is told as well.
        placed = values(extender, "hami_vgpu_memory_allocated_bytes", **who)
        seen = 1500 * MIB in limits and 1500 * MIB in placed
        return None if seen else f"1500 MiB among limits {limits} and grants {placed}"

    wait_until(unseen, 60)
    assert audit() == []


def without_init(found):
    """A pod and its grant without the init container that comes first."""
    key = "hami.io/vgpu-devices-allocated"
    annotations = {key: found["metadata"]["annotations"][key].partition(";")[2]}
    spec = {**found["spec"], "initContainers": []}
    return {**found, "metadata": {**found["metadata"], "annotations": annotations}, "spec": spec}


def restart(kube, namespace, name):
    """Let a container end, and wait for its second run."""
    kube.exec(namespace, name, "sh", "-c", "kill 1", check=False)

    def again():
        [found] = [p for p in kube.pods(namespace) if p["metadata"]["name"] == name]
        state = found["status"]["containerStatuses"][0]
        done = state["restartCount"] >= 1 and "running" in state["state"]
        return None if done else f"a second run of {name}"

    wait_until(again, 90)


@pytest.mark.parametrize("component", CHOSEN)
def test_the_previous_version_beside_the_others(kube, namespace, audit, tmp_path, component):
    """Pods created before, meanwhile and afterwards are right at every time, restarts included."""
    version = prepare(kube, component, CHOSEN[component])
    print(f"{component} at {version.commit[:12]}")
    if component == DIVIDING:
        with_instances(kube, namespace, version, tmp_path)
    else:
        with_slices(kube, namespace, audit, version)


def with_slices(kube, namespace, audit, version):
    """The story of all but mig-manager."""
    before = create(kube, namespace, "before")
    right(kube, namespace, audit, before)
    with running(kube, version):
        restart(kube, namespace, before[0])
        meanwhile = create(kube, namespace, "meanwhile")
        right(kube, namespace, audit, [*before, *meanwhile])
    restart(kube, namespace, meanwhile[0])
    after = create(kube, namespace, "after")
    right(kube, namespace, audit, [*before, *meanwhile, *after])
