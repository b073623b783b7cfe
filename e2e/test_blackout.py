"""kill -9 of all of ours while the API server is away: nothing is lost of what they know."""

import subprocess
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.kills import RENEWED, VICTIMS, forgiven, kill, processes, without_api_server
from e2e.kube import wait_until
from e2e.metrics import samples, value, values
from e2e.pods import ON_AN_A100, container, pod, slice_of
from e2e.report import wait_agreement

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
NODE = ON_AN_A100["kubernetes.io/hostname"]
MIB = 1024 * 1024
FIGURES = {
    "hami_vgpu_memory_limit_bytes": 3000 * MIB,
    # 16 MiB and an A100's context of 300, which counts.
    "hami_vgpu_memory_used_bytes": 316 * MIB,
    "hami_vgpu_memory_peak_bytes": 16 * MIB,  # the limiter's own: without contexts
    "hami_container_device_host_memory_bytes": 316 * MIB,
}
# Where each of ours says of itself what there is to say without an API server.
TELLS = {"webhook": (9396, "/readyz"), "monitor": (9394, "/metrics")}


@dataclass(frozen=True)
class Place:
    """Where a pod of ours answers, for whom cannot ask the API server."""

    node: str
    address: str

    def ask(self, kube, port, path):
        """The answer, head and all; empty when nobody answers."""
        request = rf"printf 'GET {path} HTTP/1.0\r\n\r\n'"
        script = f"exec 3<>/dev/tcp/{self.address}/{port} && {request} >&3 && cat <&3"
        return kube.node(self.node, "bash", "-c", script, check=False)


def places(kube, name):
    """Where the pods of one of our programs answer."""
    where = ("-n", "hami-system", "-l", f"app.kubernetes.io/name=hami-{name}")
    found = kube.get("pods", *where)["items"]
    return [Place(p["spec"]["nodeName"], p["status"]["podIP"]) for p in found]


def deaf_places(kube, found):
    """Which of these do not answer with 200, in their own words; None when all do."""
    said = {
        (name, place): place.ask(kube, *TELLS[name])
        for name, many in found.items()
        for place in many
    }
    silent = {who: text[-300:] for who, text in said.items() if " 200 " not in text[:20]}
    return f"an answer of {silent}" if silent else None


def absent(kube, before):
    """Which programs have not been started again as often as they were killed; None if none."""
    left = {}
    for victim, ids in before.items():
        fresh = set(processes(kube, *VICTIMS[victim])) - ids
        if len(fresh) < len(ids):
            left[victim] = f"{len(fresh)} of {len(ids)}"
    return f"processes started again: {left}" if left else None


def stop_container(kube, name):
    """End a pod's container as a crash would, past the API server."""
    listed = kube.node(NODE, "crictl", "ps").splitlines()
    found = [words[0] for line in listed if (words := line.split()) and name in words]
    assert len(found) == 1, f"containers of {name}: {listed}"
    kube.node(
        NODE,
        "sh",
        "-c",
        f"ctr -n k8s.io tasks kill -s KILL $(ctr -n k8s.io tasks ls -q | grep ^{found[0]})",
    )


def changed(kube, namespace):
    """Which figures of the pod that ran on are not what they were; None when all are."""
    found = samples(kube, "hami-monitor", 9394)
    who = {"namespace": namespace, "pod": "steady", "container": "c"}
    wrong = {n: value(found, n, **who) for n, v in FIGURES.items() if value(found, n, **who) != v}
    return f"the monitor's figures {FIGURES}, others are {wrong}" if wrong else None


def uncreated(kube, obj):
    """Why the API server does not take a pod (yet); None once it has."""
    try:
        kube.create(obj)
    except subprocess.SubprocessError as error:
        return f"the creation of {obj['metadata']['name']}: {error}"
    return None


def finding(text):
    """What a monitor found, by its metrics' page."""
    page = text.partition("\r\n\r\n")[2]
    found = [s for family in text_string_to_metric_families(page) for s in family.samples]
    return values(found, "hami_audit_findings_total")


def test_all_of_ours_killed_while_the_api_server_is_away(kube, namespace, audit):
    """Who needs no API server serves again without it; afterwards all is as it was."""
    for victim in RENEWED:
        forgiven(kube, victim)
    asked = container("c", slice_of(memory=3000, cores=10))
    kube.create(*(pod(n, namespace, asked, nodeSelector=ON_AN_A100) for n in ("steady", "again")))
    kube.wait_running(namespace, "steady", "again")
    wait_until(lambda: changed(kube, namespace), 60)
    found = {name: places(kube, name) for name in TELLS}
    with without_api_server(kube):
        before = {victim: set(processes(kube, *VICTIMS[victim])) for victim in RENEWED}
        for victim in RENEWED:
            kill(kube, victim)
        stop_container(kube, "again")
        wait_until(lambda: absent(kube, before), 120)
        wait_until(lambda: deaf_places(kube, found), 120)
        for place in found["monitor"]:
            # It knows no pod, so it must not take their processes for strangers.
            assert sum(finding(place.ask(kube, *TELLS["monitor"]))) == 0
    for workload in RENEWED.values():
        kube.kubectl("rollout", "status", workload, "-n", "hami-system", "--timeout=120s")
    # The nodes' leases may have run out, and with them the webhook's endpoint.
    late = pod("late", namespace, asked, nodeSelector=ON_AN_A100)
    wait_until(lambda: uncreated(kube, late), 120)
    wrong = pod("wrong", namespace, container("c", slice_of(memory="3000M")))
    assert "write 3000" in kube.refusal(wrong)
    kube.wait_running(namespace, "steady", "again", "late")
    wait_until(lambda: changed(kube, namespace), 60)
    counts = {
        p["metadata"]["name"]: p["status"]["containerStatuses"][0]["restartCount"]
        for p in kube.pods(namespace)
    }
    assert counts == {"steady": 0, "again": 1, "late": 0}
    wait_agreement(kube, namespace)
    assert sum(values(samples(kube, "hami-monitor", 9394), "hami_audit_findings_total")) == 0
    assert audit() == []
