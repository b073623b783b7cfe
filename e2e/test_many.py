"""Many pods at once on one node, each asking for something else."""

import pytest

from e2e.pods import REPORT, container, pod, slice_of
from e2e.report import granted, wait_agreement

pytestmark = pytest.mark.cluster
PODS = 40


def different(index, namespace):
    """Pod number `index`: init and app container ask differently, and like no other pod's."""
    init = container("init", slice_of(memory=700 + 30 * index, cores=1 + index % 5), REPORT)
    app = container("app", slice_of(memory=1000 + 50 * index, cores=1 + index % 9))
    where = {"kubernetes.io/hostname": "hami-worker"}
    return pod(f"p{index}", namespace, app, initContainers=[init], nodeSelector=where)


def test_forty_pods_on_four_cards(kube, namespace, audit):
    """All run, and each container reports exactly the card, memory and cores of its grant."""
    kube.create(*(different(index, namespace) for index in range(PODS)))
    kube.wait_running(namespace, *(f"p{i}" for i in range(PODS)), seconds=300)
    pods = kube.pods(namespace)
    assert len({granted(p)[1][0].memory_mib for p in pods}) == PODS
    wait_agreement(kube, namespace, pods)
    assert audit() == []
