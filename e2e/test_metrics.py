"""Metrics say what containers were granted and what they use."""

import pytest

from e2e.kube import wait_until
from e2e.metrics import samples, value
from e2e.pods import ON_AN_A100, container, pod, slice_of

pytestmark = pytest.mark.cluster
MIB = 1024 * 1024


def test_a_container_is_seen_with_its_limit_and_its_use(kube, namespace):
    """Limit and use of a running container, and the extender's account of its card."""
    program = container("app", slice_of(memory=3000, cores=30))
    kube.create(pod("seen", namespace, program, nodeSelector=ON_AN_A100))
    kube.wait_running(namespace, "seen")
    who = {"namespace": namespace, "pod": "seen", "container": "app"}

    def shown():
        found = samples(kube, "hami-monitor", 9394)
        limit = value(found, "hami_vgpu_memory_limit_bytes", **who)
        used = value(found, "hami_vgpu_memory_used_bytes", **who)
        # 16 MiB and an A100's context of 300, which counts.
        return None if (limit, used) == (3000 * MIB, 316 * MIB) else f"limit {limit}, used {used}"

    wait_until(shown, 60)
    of_pod = {"namespace": namespace, "pod": "seen"}

    def accounted():
        extender = samples(kube, "hami-scheduler", 9395)
        found = value(extender, "hami_vgpu_memory_allocated_bytes", **of_pod)
        return None if found == 3000 * MIB else f"{3000 * MIB} allocated, by the extender {found}"

    wait_until(accounted, 60)
