"""Every panel of the dashboards shows what the simulated cards' own ledger says."""

import re

import pytest

from deploy.dashboards import PAGES
from e2e.cards import ledger
from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of
from e2e.prometheus import running

pytestmark = pytest.mark.cluster
NODE = "hami-worker"
MIB = 1024 * 1024
# No card here is cut into MIG instances, and the test's program loads no module.
ABSENT = ("hami_mig_device_info", "hami_vgpu_memory_module_bytes")
BUSY = "cuprobe hold 200 forever & exec cuprobe spin 600 1000"
BYPASS = "umount /etc/ld.so.preload; exec cuprobe hold 100 forever"
UNHELD = {"capabilities": {"add": ["SYS_ADMIN"]}}


@pytest.fixture
def loaded(kube, namespace, cards):
    """Work of every kind on one card, and a pod that waits; the card."""
    card = cards[NODE][3]["id"]
    here = {"annotations": {"nvidia.com/use-gpuuuid": card}}
    quota = {"hard": {"limits.nvidia.com/gpumem": "100000"}}
    kube.create(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "gpu", "namespace": namespace},
            "spec": quota,
        },
        pod("busy", namespace, container("c", slice_of(memory=3000, cores=30), BUSY), **here),
        pod("idle", namespace, container("c", slice_of(memory=5000, cores=20)), **here),
        pod(
            "bypass",
            namespace,
            container("c", slice_of(memory=1000), BYPASS, securityContext=UNHELD),
            **here,
        ),
        pod("waits", namespace, container("c", slice_of(gpu=8, memory=1000))),
    )
    kube.wait_running(namespace, "busy", "idle", "bypass")
    return card


def everything(query):
    """A panel's query with every variable set to all."""
    return re.sub(r"\$\w+", ".*", query)


def of(found, **labels):
    """The value of the one series with these labels; None while there is none, or more."""
    values = [value for series, value in found if labels.items() <= series.items()]
    return values[0] if len(values) == 1 else None


def test_every_panel_shows_something_and_the_truth(kube, namespace, loaded, tmp_path):
    """Through a real Prometheus, with the labels that the operator's scrapes would have."""
    with running(kube, tmp_path) as prometheus:
        queries = {
            (page.uid, panel.title, query): everything(query)
            for page in PAGES
            for panel in page.panels
            for query, _ in panel.queries
            if not query.startswith(ABSENT)
        }

        def empty():
            nothing = [name for name, query in queries.items() if not prometheus.query(query)]
            return f"no series for {nothing}" if nothing else None

        wait_until(empty, 90)
        of_bypass = {"namespace": namespace, "pod": "bypass", "kind": "no_limiter"}
        of_busy = {"namespace": namespace, "pod": "busy", "container": "c", "device_uuid": loaded}

        def untrue():
            row = next(card for card in ledger(NODE)["cards"] if card["uuid"] == loaded)
            used = sum(process["bytes"] for process in row["processes"])
            card = {"node": NODE, "device_uuid": loaded}
            expected = {
                ("hami_host_gpu_memory_used_bytes", *card.items()): used,
                ("hami_gpu_memory_allocated_bytes", *card.items()): 9000 * MIB,
                ("hami_gpu_shared_count", *card.items()): 3,
                ("hami_gpu_core_allocated_ratio", *card.items()): 50,
                ("hami_vgpu_memory_limit_bytes", *of_busy.items()): 3000 * MIB,
                ("hami_audit_finding_processes", *of_bypass.items()): 1,
                ("max(hami_extender_waiting_pods)",): 1,
            }
            shown = {key: of(prometheus.query(key[0]), **dict(key[1:])) for key in expected}
            share = of(prometheus.query("hami_container_device_busy_ratio"), **of_busy)
            wrong = {
                key: (shown[key], want) for key, want in expected.items() if shown[key] != want
            }
            if share is None or not 0.2 < share < 0.4:
                wrong[("busy",)] = (share, 0.3)
            return f"shown and true: {wrong}" if wrong else None

        wait_until(untrue, 60)
