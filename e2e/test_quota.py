"""A namespace's quota holds, and a larger one wakes who waits."""

import pytest

from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of

pytestmark = pytest.mark.cluster


def quota(namespace, memory):
    """A quota on GPU memory in HAMi's form."""
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpu", "namespace": namespace},
        "spec": {"hard": {"limits.nvidia.com/gpumem": str(memory)}},
    }


def test_a_quota_holds_and_a_larger_one_wakes(kube, namespace, audit):
    """The second pod waits for the quota, not for a card; raised, it is placed at once."""
    kube.create(quota(namespace, 3000))
    kube.create(pod("first", namespace, container("c", slice_of(memory=2000))))
    kube.wait_running(namespace, "first")
    kube.create(pod("second", namespace, container("c", slice_of(memory=2000))))

    def refused():
        said = kube.said(namespace, "second")
        return None if "ResourceQuotaNotFit" in said else f"the reason in {said!r}"

    wait_until(refused, 60)
    kube.apply(quota(namespace, 4000))
    kube.wait_running(namespace, "first", "second", seconds=120)
    assert audit() == []
