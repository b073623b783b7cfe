"""The production overlay: two of each control program, and none of them is missed."""

import base64
import json
import re
import subprocess

import pytest

from e2e import product
from e2e.kube import wait_until
from e2e.load import creations
from e2e.pods import container, pod, slice_of
from e2e.webhooks import SYSTEM, certificate, expiries, gone, webhooks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
OVERLAY = str(product.ROOT / "deploy/overlays/production")
WEBHOOK = (*SYSTEM, "deployment/hami-webhook")


@pytest.fixture(scope="module", autouse=True)
def production(kube):
    """The overlay on the cluster; afterwards as it was."""
    kube.kubectl("apply", "-k", OVERLAY)
    for name in product.DEPLOYMENTS:
        kube.kubectl("rollout", "status", *SYSTEM, f"deployment/{name}", "--timeout=240s")
    wait_until(lambda: gone(kube), 120)
    yield
    kube.kubectl("delete", "poddisruptionbudget,networkpolicy", *SYSTEM, "--all")
    product.install()


@pytest.fixture
def load(namespace):
    """Device pods, created all the time."""
    body = pod("load", namespace, container("c", slice_of(memory=100)))
    with creations(namespace, body) as found:
        wait_until(lambda: None if found.done > 20 else "a load", 30)
        yield found


def nodes_of(kube, name):
    """The nodes on which a program's pods are."""
    pods = kube.get("pods", *SYSTEM, "-l", f"app.kubernetes.io/name={name}")["items"]
    return sorted(p["spec"]["nodeName"] for p in pods if "deletionTimestamp" not in p["metadata"])


@pytest.mark.parametrize("name", product.DEPLOYMENTS)
def test_two_of_each_on_two_nodes_and_one_may_go(kube, name):
    """A roll-out spreads them; the budget lets one be taken at a time."""
    assert nodes_of(kube, name) == sorted(kube.nodes)
    wait_until(lambda: unallowed(kube, name), 60)


def unallowed(kube, name):
    """None once the budget knows both pods and lets one go; its controller counts after them."""
    status = kube.get("pdb", *SYSTEM, name)["status"]
    found = (status["expectedPods"], status["disruptionsAllowed"])
    return None if found == (2, 1) else f"2 pods of {name}, of which 1 may go: {found}"


def test_only_the_node_agents_are_outside_of_pod_security_restricted(kube):
    """By the API server's own judgement; docs and manifests say why each of them is."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    command = f"{kube.binary} label --dry-run=server --overwrite namespace hami-system {label} 2>&1"
    found = re.findall(
        r"Warning: (hami-[a-z0-9-]+)(?: .and (\d+) other)?", kube.run("sh", "-c", command)
    )
    pods = kube.get("pods", *SYSTEM)["items"]
    agents = {
        p["metadata"]["name"]
        for p in pods
        if p["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet"
    }
    # Those with the same faults are told together: one by its name, the others by their number.
    assert sum(1 + int(others or 0) for _, others in found) == len(agents)
    assert {name for name, _ in found} <= agents


def evict(kube, name):
    """Ask for a pod's eviction, as `kubectl drain` does."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": "hami-system"},
    }
    path = f"/api/v1/namespaces/hami-system/pods/{name}/eviction"
    kube.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def test_evictions_under_load_lose_no_request(kube, load):
    """One goes, the other has to stay until there are two again; admissions go on."""
    first, second = webhooks(kube)
    wait_until(lambda: unallowed(kube, "hami-webhook"), 60)
    evict(kube, first)
    with pytest.raises(subprocess.SubprocessError, match="disruption budget"):
        evict(kube, second)
    kube.kubectl("rollout", "status", *WEBHOOK, "--timeout=240s")
    wait_until(lambda: gone(kube), 120)
    assert load.failures == []


def test_a_roll_out_under_load_loses_no_request(kube, load):
    """Of two as of one."""
    before = load.done
    kube.kubectl("rollout", "restart", *WEBHOOK)
    kube.kubectl("rollout", "status", *WEBHOOK, "--timeout=240s")
    wait_until(lambda: gone(kube), 120)
    assert load.done > before
    assert load.failures == []


def test_two_replicas_change_their_authority_together(kube, load):
    """Somebody deletes the Secret: one issues, both are trusted, both show it, nobody notices."""
    wait_until(lambda: None if certificate(kube) else "the Secret", 60)
    before, shown = certificate(kube), expiries(kube)
    kube.kubectl("delete", "secret", *SYSTEM, "hami-webhook-tls")

    def trusted():
        found = kube.get("mutatingwebhookconfiguration", "hami-webhook")
        bundle = base64.b64decode(found["webhooks"][0]["clientConfig"]["caBundle"])
        return None if bundle.count(b"BEGIN") > 1 else "a second authority"

    def changed():
        now = expiries(kube)
        fine = len(set(now.values())) == 1 and not set(now.values()) & set(shown.values())
        return None if fine and len(now) == 2 else f"one new certificate, not {now}"

    wait_until(trusted, 120)
    wait_until(lambda: None if certificate(kube) not in ("", before) else "a new Secret", 120)
    wait_until(changed, 180)
    assert load.failures == []


def test_the_other_scheduler_takes_over(kube, namespace, audit):
    """The leader is deleted while pods are created; they all run, with their own slices."""
    holder = kube.get("lease", *SYSTEM, "hami-scheduler")["spec"]["holderIdentity"]
    leader = holder.rsplit("_", 1)[0]
    names = [f"p{index}" for index in range(6)]
    asked = [pod(name, namespace, container("c", slice_of(memory=700))) for name in names]
    kube.create(*asked[:3])
    kube.kubectl("delete", "pod", *SYSTEM, leader, "--wait=false")
    kube.create(*asked[3:])
    kube.wait_running(namespace, *names, seconds=180)
    now = kube.get("lease", *SYSTEM, "hami-scheduler")["spec"]["holderIdentity"]
    assert now != holder
    assert audit() == []
    kube.kubectl("rollout", "status", *SYSTEM, "deployment/hami-scheduler", "--timeout=240s")
