"""Each program has the rights that it uses: none is missing, none is there for nothing."""

import json
import subprocess

import pytest
from ruamel.yaml import YAML

from e2e import product
from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
NODE = "hami-control-plane"
MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
# The API server has this folder mounted already.
POLICY_FILE = "/etc/kubernetes/pki/hami-audit.json"
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts:hami-system"]},
        {"level": "None"},
    ],
}
FLAGS = (f"--audit-policy-file={POLICY_FILE}", "--audit-log-path=-")
# Used only when something goes wrong in a way that this test does not bring about.
RARE = {
    ("hami-scheduler", "get", "pods"): "the outcome of a Binding is unknown",
    ("hami-scheduler", "patch", "pods/status"): "kube-scheduler asked a moment too early",
    ("hami-scheduler", "create", "events"): "a pod does not fit",
    ("hami-device-plugin", "patch", "nodes"): "what the node announces has changed",
    ("hami-device-plugin", "create", "events"): "a container cannot be prepared",
    ("hami-webhook", "create", "events"): "the configuration changes",
    ("hami-webhook", "patch", "secrets"): "a certificate is renewed",
    ("hami-monitor", "create", "events"): "a container uses more than it was granted",
    ("hami-scheduler", "create", "leases"): "the first start on a cluster",
    ("hami-scheduler", "create", "tokenreviews"): "somebody asks /explain",
    ("hami-scheduler", "create", "subjectaccessreviews"): "somebody asks /explain",
}


def apiserver():
    """The API server's pod."""
    return f"kube-apiserver-{NODE}"


def switch_on(kube):
    """Have the API server write its audit log, and wait for the one that does."""
    kept = f"grep -v audit- {MANIFEST}"
    added = "".join(f"    - {flag}\\n" for flag in FLAGS)
    insert = f"sed 's|^    - kube-apiserver$|&\\n{added}|' | grep -v '^$'"
    # Made elsewhere: kubelet takes every file in that folder for a manifest.
    kube.node(NODE, "sh", "-c", f"{kept} | {insert} > /tmp/m.yaml && cp /tmp/m.yaml {MANIFEST}")

    def settled():
        try:
            found = kube.get("pod", "-n", "kube-system", apiserver())
        except subprocess.SubprocessError as error:
            return f"the API server: {error}"
        command = found["spec"]["containers"][0]["command"]
        ready = any(c["ready"] for c in found["status"].get("containerStatuses", []))
        return None if ready and FLAGS[0] in command else "the API server's restart"

    wait_until(settled, 240)


@pytest.fixture
def audited(kube):
    """An API server that writes down what our service accounts ask; since when we look.

    It goes on with that: another restart would take a minute, and nobody minds the few lines.
    """
    script = f"cat > {POLICY_FILE} <<'X'\n{json.dumps(POLICY)}\nX"
    kube.node(NODE, "sh", "-c", script)
    if FLAGS[0] not in kube.node(NODE, "cat", MANIFEST):
        switch_on(kube)
    return kube.node(NODE, "date", "--utc", "+%Y-%m-%dT%H:%M:%SZ").strip()


def asked(kube, since):
    """Every request of our accounts: account, verb, resource, and the answer's code."""
    found = set()
    where = ("-n", "kube-system", apiserver(), f"--since-time={since}")
    for line in kube.kubectl("logs", *where).splitlines():
        if not line.startswith('{"kind":"Event"'):
            continue
        event = json.loads(line)
        ref, account = event.get("objectRef", {}), event["user"]["username"].rsplit(":", 1)[1]
        resource = ref.get("resource", "")
        if ref.get("subresource"):
            resource += f"/{ref['subresource']}"
        code = event.get("responseStatus", {}).get("code", 0)
        found.add((account, event["verb"], resource, code))
    return found


def granted():
    """Our own rules, as the manifests have them: account, verb, resource."""
    command = ["kubectl", "kustomize", str(product.ROOT / product.OVERLAY)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    objects = list(YAML(typ="safe").load_all(text))
    roles = {
        (o["kind"], o["metadata"]["name"]): o["rules"]
        for o in objects
        if o["kind"].endswith("Role")
    }
    return {
        (subject["name"], verb, resource)
        for binding in objects
        if binding["kind"].endswith("RoleBinding")
        for rule in roles.get((binding["roleRef"]["kind"], binding["roleRef"]["name"]), [])
        for subject in binding["subjects"]
        for verb in rule["verbs"]
        for resource in rule.get("resources", [])
    }


def test_no_right_is_missing_and_none_is_unused(kube, namespace, audited):
    """Every program starts anew, a pod comes and goes, a certificate is renewed."""
    for name in product.DEPLOYMENTS:
        kube.kubectl("rollout", "restart", "-n", "hami-system", f"deployment/{name}")
    for name in product.DAEMONS:
        kube.kubectl("rollout", "restart", "-n", "hami-system", f"daemonset/{name}")
    kube.kubectl("delete", "secret", "-n", "hami-system", "hami-webhook-tls")
    for kind, names in (("deployment", product.DEPLOYMENTS), ("daemonset", product.DAEMONS)):
        for name in names:
            where = ("-n", "hami-system", f"{kind}/{name}", "--timeout=240s")
            kube.kubectl("rollout", "status", *where)
    kube.create(pod("p", namespace, container("c", slice_of(memory=1000))))
    kube.wait_running(namespace, "p")
    expected = granted() - set(RARE)

    used = set()  # kept from look to look: what the log says first is rotated away one day

    def unused():
        used.update(
            (account, verb, resource) for account, verb, resource, _ in asked(kube, audited)
        )
        left = sorted(expected - used)
        return f"use of {left}" if left else None

    wait_until(unused, 180)
    refused = sorted(each for each in asked(kube, audited) if each[3] == 403)
    assert refused == []


def test_the_rare_ones_are_real():
    """Who takes a right away takes its line away here, too."""
    assert set(RARE) - granted() == set()
