"""Every panel, and every query that HAMi documents, shows what the cards' own ledger says."""

import os
import shutil
from pathlib import Path

import pytest

from deploy.dashboards import PAGES
from e2e import pictures
from e2e.cards import ledger
from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of
from e2e.prometheus import running

pytestmark = pytest.mark.cluster
NODES = ("hami-worker", "hami-control-plane")
NODE, MIB = NODES[0], 1024 * 1024
# No card here is cut into MIG instances, and the test's program loads no module.
ABSENT = ("hami_mig_device_info", "hami_vgpu_memory_module_bytes")
BUSY = "cuprobe alloc 5000; cuprobe hold 200 forever & exec cuprobe spin 600 1000"
BYPASS = "umount /etc/ld.so.preload; exec cuprobe hold 100 forever"
UNHELD = {"capabilities": {"add": ["SYS_ADMIN"]}}
CONTEXT, IDLE, HELD = 300 * MIB, 316 * MIB, 400 * MIB
GRANTED = {"busy": 3000, "idle": 5000, "bypass": 1000}


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


class Truth:
    """What each query has to return, by the fake cards' ledger and the pods of this test."""

    def __init__(self, namespace, uuid):
        self.ledgers = {node: ledger(node)["cards"] for node in NODES}
        [self.row] = [card for card in self.ledgers[NODE] if card["uuid"] == uuid]
        self.cards = [card for node in NODES for card in self.ledgers[node]]
        self.total = sum(card["total"] for card in self.cards)
        self.used = sum(process["bytes"] for process in self.row["processes"])
        self.everywhere = sum(p["bytes"] for card in self.cards for p in card["processes"])
        self.busy = self.used - IDLE - HELD
        self.quarter = len(self.ledgers[NODE])
        self.card = {"node": NODE, "device_uuid": uuid}
        self.space = {"namespace": namespace}
        self.pods = {
            name: {**self.space, "pod": name, "container": "c", "device_uuid": uuid}
            for name in GRANTED
        }

    def of_node(self, node):
        """Memory of a node's cards."""
        return sum(card["total"] for card in self.ledgers[node])

    def by_pod(self, **values):
        """A series for each of these pods."""
        return [(self.pods[name], value) for name, value in values.items()]

    def panels(self):
        """Series that each query of each panel has to return, by page, title and legend's place.

        A pair instead of a number is the range of what moves.
        """
        granted, share, unused = 9000 * MIB, (0.2, 0.4), (9000 * MIB - self.busy - IDLE)
        worker = {"node": NODE}
        memory = self.by_pod(busy=self.busy, idle=IDLE, bypass=0)
        limits = self.by_pod(**{name: mib * MIB for name, mib in GRANTED.items()})
        busy = self.by_pod(busy=share, idle=0, bypass=0)
        one = self.card
        return {
            ("hami-cluster", "Cards", 0): [({}, len(self.cards))],
            ("hami-cluster", "Tasks on cards", 0): [({}, 3)],
            ("hami-cluster", "Memory granted", 0): [({}, granted / self.total)],
            ("hami-cluster", "Compute granted", 0): [({}, 50 / (100 * len(self.cards)))],
            ("hami-cluster", "Pods that wait", 0): [({}, 2)],
            ("hami-cluster", "Audit findings", 0): [({}, 1)],
            ("hami-cluster", "Memory", 0): [({}, self.total)],
            ("hami-cluster", "Memory", 1): [({}, granted)],
            ("hami-cluster", "Memory", 2): [({}, self.everywhere)],
            ("hami-cluster", "Busy cards by node", 0): [
                (worker, tuple(s / self.quarter for s in share)),
                ({"node": NODES[1]}, 0),
            ],
            ("hami-cluster", "Memory granted by node", 0): [
                (worker, granted / self.of_node(NODE)),
                ({"node": NODES[1]}, 0),
            ],
            ("hami-cluster", "Why nodes were refused", 0): [
                ({"reason": "NodeInsufficientDevice"}, (1, 1e9))
            ],
            ("hami-cluster", "Extender: time to answer, 99 of 100", 0): [
                ({"verb": "filter"}, (0, 60))
            ],
            ("hami-cluster", "Quota used", 0): [
                ({**self.space, "quota_name": "nvidia.com/gpumem"}, 0.09)
            ],
            ("hami-node", "Memory granted", 0): [(one, granted)],
            ("hami-node", "Memory used", 0): [(one, self.used)],
            ("hami-node", "Part of the memory granted", 0): [(one, granted / self.row["total"])],
            ("hami-node", "Compute granted", 0): [(one, 0.5)],
            ("hami-node", "Busy", 0): [(one, share)],
            ("hami-node", "Tasks", 0): [(one, 3)],
            ("hami-card", "Memory", 0): [(one, self.row["total"])],
            ("hami-card", "Memory", 1): [(one, granted)],
            ("hami-card", "Memory", 2): [(one, self.used)],
            ("hami-card", "Memory by container", 0): memory,
            ("hami-card", "Limits", 0): limits,
            ("hami-card", "Compute by container", 0): busy,
            ("hami-pod", "Memory", 0): limits,
            ("hami-pod", "Memory", 1): memory,
            ("hami-pod", "Memory", 2): self.by_pod(busy=self.busy - 2 * CONTEXT, idle=16 * MIB),
            ("hami-pod", "Memory by kind", 0): self.by_pod(busy=2 * CONTEXT, idle=CONTEXT),
            ("hami-pod", "Memory by kind", 2): self.by_pod(
                busy=self.busy - 2 * CONTEXT, idle=16 * MIB
            ),
            ("hami-pod", "Compute", 0): self.by_pod(busy=0.3, idle=0.2),
            ("hami-pod", "Compute", 1): busy,
            ("hami-pod", "Allocations refused", 0): self.by_pod(busy=1, idle=0),
            ("hami-pod", "Held back", 0): [({**self.space, "pod": "busy"}, 0)],
            ("hami-pod", "Priority", 0): [({**self.space, "pod": "busy"}, 1)],
            ("hami-waste", "Memory granted and not used, by namespace", 0): [(self.space, unused)],
            ("hami-waste", "Compute granted and not used, by namespace (cards)", 0): [
                (self.space, (0.1, 0.3))
            ],
            ("hami-waste", "Pods with the most memory unused", 0): [
                ({**self.space, "pod": "idle"}, 5000 * MIB - IDLE),
                ({**self.space, "pod": "bypass"}, 1000 * MIB),
            ],
            ("hami-waste", "Idle longest", 0): [({**self.space, "pod": "idle"}, (0, 900))],
            ("hami-waste", "Granted by the scheduler", 0): [(self.space, granted)],
        }

    def documented(self):
        """HAMi's: of its dashboard, of its two lists of metrics, and its joins on the card."""
        card, total = self.card, self.row["total"]
        limit, used = "hami_gpu_memory_limit_bytes", "hami_host_gpu_memory_used_bytes"
        pod_used, pod_limit = "hami_vgpu_memory_used_bytes", "hami_vgpu_memory_limit_bytes"
        memory = self.by_pod(busy=self.busy, idle=IDLE, bypass=0)
        quota = {**self.space, "quota_name": "nvidia.com/gpumem"}
        of_busy = {"namespace": self.space["namespace"], "pod": "busy", **card}
        by_card = {"device_uuid": card["device_uuid"]}
        mib = {"device_memory_limit": str(total // MIB), "device_cores": "100"}
        return {
            limit: [(card, total)],
            "hami_gpu_core_limit_ratio": [(card, 100)],
            "hami_gpu_memory_allocated_bytes": [({**card, "device_cores": "100"}, 9000 * MIB)],
            "hami_gpu_core_allocated_ratio": [(card, 50)],
            "hami_gpu_shared_count": [(card, 3)],
            "hami_node_gpu_overview": [({**card, **mib}, 9000 * MIB)],
            "hami_node_gpu_memory_allocated_ratio": [(card, 9000 * MIB / total)],
            "hami_vgpu_memory_allocated_bytes": [(of_busy, 3000 * MIB)],
            "hami_vgpu_core_allocated_ratio": [(of_busy, 30)],
            "hami_resource_quota_used": [({**quota, "limit": "100000"}, 9000)],
            "hami_resource_quota_limit": [(quota, 100000)],
            used: [(card, self.used)],
            "hami_host_gpu_utilization_ratio": [(card, (20, 40))],
            "hami_host_gpu_memory_controller_utilization_ratio": [(card, (0, 100))],
            pod_used: memory,
            "hami_container_device_memory_bytes": memory,
            pod_limit: self.by_pod(busy=3000 * MIB, idle=5000 * MIB, bypass=1000 * MIB),
            "hami_vgpu_memory_context_bytes": self.by_pod(busy=2 * CONTEXT, idle=CONTEXT),
            "hami_vgpu_memory_buffer_bytes": self.by_pod(idle=16 * MIB),
            "hami_container_device_utilization_ratio": self.by_pod(busy=(20, 40), idle=0),
            "hami_container_last_kernel_elapsed_seconds": self.by_pod(busy=(0, 60), idle=(0, 900)),
            f"{used} / on (device_uuid) {limit}": [(by_card, self.used / total)],
            f"{used} * on (device_uuid) group_left (device_type) ({limit} > bool 0)": [
                (card, self.used)
            ],
            f"sum by (device_uuid) ({pod_used}) / on (device_uuid) {limit}": [
                (by_card, (self.busy + IDLE) / total)
            ],
            f"{pod_used} / {pod_limit}": self.by_pod(busy=self.busy / (3000 * MIB), bypass=0),
            "hami_build_info": [({"namespace": "hami-system", "job": "hami-monitor"}, (1, 1))],
        }


def of(found, labels):
    """The values of all series with these labels."""
    return {value for series, value in found if labels.items() <= series.items()}


def fits(values, want):
    """Whether there is one value, and the one that is wanted or one in its range."""
    low, high = want if isinstance(want, tuple) else (want, want)
    return len(values) == 1 and low * (1 - 1e-9) <= min(values) <= high * (1 + 1e-9)


def test_every_panel_and_every_documented_query_shows_the_truth(kube, namespace, loaded, tmp_path):
    """Through a real Prometheus, with the labels that the operator's scrapes would have."""
    queries = {
        (page.uid, panel.title, number): pictures.everything(query)
        for page in PAGES
        for panel in page.panels
        for number, (query, _) in enumerate(panel.queries)
        if not query.startswith(ABSENT)
    }
    assert queries.keys() == Truth(namespace, loaded).panels().keys()
    with running(kube, tmp_path) as prometheus:
        # Rates are of what happens between two scrapes.
        kube.create(pod("waits-too", namespace, container("c", slice_of(gpu=8, memory=1000))))

        def untrue():
            truth = Truth(namespace, loaded)
            wanted = {queries[key]: series for key, series in truth.panels().items()}
            wrong = []
            for query, series in (wanted | truth.documented()).items():
                found = prometheus.query(query)
                wrong += [
                    f"{query} {labels}: {shown}, the ledger says {want}"
                    for labels, want in series
                    if not fits(shown := of(found, labels), want)
                ]
            return "\n".join(wrong) or None

        wait_until(untrue, 120)
        taken = pictures.take(prometheus, (page.uid for page in PAGES), tmp_path)
        assert all(picture.stat().st_size > 10_000 for picture in taken)
        # Of this test's load, for the documentation: HAMI_PICTURES=docs/images.
        if folder := os.environ.get("HAMI_PICTURES"):
            for picture in taken:
                shutil.copy(picture, Path(folder))
