"""The rendered manifests: valid, hardened, and in step with the code."""

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from kubernetes_validate import validate
from ruamel.yaml import YAML

from hami_monitor.config import Config
from hami_webhook.conditions import CONDITIONS
from hamikit import names
from hamikit.ascend import ascend_row
from hamikit.deviceconfig import nvidia_family
from hamikit.devices import HYGON, NVIDIA

DEPLOY = Path(__file__).parents[1]
OVERLAYS = ("local", "kind", "production", "migration")
FEATURES = sorted(path.name for path in (DEPLOY / "features").iterdir())
# From the oldest that is supported to the newest that the validator knows.
VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
# Of other projects; what they look like is not in Kubernetes' own schema.
FOREIGN = {"Certificate", "Issuer", "PrometheusRule", "ServiceMonitor"}

if shutil.which("kubectl") is None:
    # `make e2e` brings one along and runs these again.
    pytest.skip("kubectl renders the manifests; install it", allow_module_level=True)


def rendered(folder):
    """All objects of a kustomization; an overlay by its name."""
    command = ["kubectl", "kustomize", str(DEPLOY / "overlays" / folder)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(json.dumps(o)) for o in YAML(typ="safe").load_all(text)]


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request):
    """All objects, overlay by overlay."""
    return rendered(request.param)


def pod_specs(objects):
    """(name, pod template's spec) of every workload."""
    return [
        (o["metadata"]["name"], o["spec"]["template"]["spec"])
        for o in objects
        if "template" in o.get("spec", {})
    ]


@pytest.mark.parametrize("overlay", [*OVERLAYS, "uninstall"])
def test_every_object_follows_its_schema(overlay):
    """Strictly, an unknown field is an error; in every supported version."""
    for obj in rendered(overlay):
        check_schema(json.dumps(obj))


@cache
def check_schema(text):
    """Overlays have most of their objects in common, and each takes a while."""
    for version in VERSIONS:
        validate(json.loads(text), version, strict=True)


@pytest.fixture(scope="module")
def featured(tmp_path_factory):
    """The objects of the base with some features."""

    def make(*features):
        folder = tmp_path_factory.mktemp("overlay")
        above = os.path.relpath(DEPLOY, folder)
        lines = [f"resources: [{above}/base]", "components:"]
        lines += [f"  - {above}/features/{feature}" for feature in [*features, "release"]]
        text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        (folder / "kustomization.yaml").write_text(text + "\n".join(lines) + "\n")
        return rendered(folder)

    return make


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_goes_with_the_base(featured, feature):
    """Alone, and what it makes or changes follows the schema of every supported version."""
    for obj in featured(feature) if feature != "release" else featured():
        if obj["kind"] not in FOREIGN:
            check_schema(json.dumps(obj))


def test_features_go_together(featured):
    """Any but the two that issue the certificate, and each does what it says."""
    chosen = [f for f in FEATURES if f not in ("self-signed", "release")]
    objects = {(o["kind"], o["metadata"]["name"]): o for o in featured(*chosen)}
    webhook = objects["Deployment", "hami-webhook"]["spec"]
    assert webhook["replicas"] == 2
    env = {e["name"]: e.get("value") for e in webhook["template"]["spec"]["containers"][0]["env"]}
    assert env["CERTIFICATE_DIR"] == "/etc/hami-certificate"
    [keeper] = webhook["template"]["spec"]["initContainers"]
    assert {"name": "SELF_SIGNED", "value": "false"} in keeper["env"]
    assert ("Role", "hami-webhook-certificate") not in objects
    registration = objects["MutatingWebhookConfiguration", "hami-webhook"]
    assert [w["failurePolicy"] for w in registration["webhooks"]] == ["Fail", "Ignore"]


def test_the_lock_protocol_is_a_feature(featured):
    """Its rights and the extender's flag come together, and neither is in the base."""
    found = {(o["kind"], o["metadata"]["name"]): o for o in featured("lock-protocol")}
    containers = found["Deployment", "hami-scheduler"]["spec"]["template"]["spec"]["containers"]
    assert ["--lock-protocol" in container["args"] for container in containers] == [False, True]
    rules = found["ClusterRole", "hami-extender-lock"]["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [
        (["nodes"], ["get", "patch"]),
        (["pods"], ["patch"]),
    ]
    for obj in rendered("local"):
        assert not obj["metadata"]["name"].endswith("-lock")


def test_beside_hami_its_plugin_may_write_and_ours_keeps_off_its_nodes(featured):
    """The policy of the base, and one account more; agents on nodes that have moved only."""

    def accounts(objects):
        [policy] = [
            o
            for o in objects
            if o["kind"] == "ValidatingAdmissionPolicy" and o["metadata"]["name"] == "hami-grants"
        ]
        [condition] = policy["spec"]["matchConditions"]
        return set(re.findall(r"'(system:serviceaccount:[^']+)'", condition["expression"]))

    found = featured("migration", "lock-protocol")
    more = accounts(found) - accounts(featured())
    assert more == {"system:serviceaccount:kube-system:hami-device-plugin"}
    assert accounts(featured()) < accounts(found)
    agents = [o for o in found if o["kind"] == "DaemonSet"]
    assert len(agents) == 3
    for agent in agents:
        assert agent["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "migrated"}


class Network:
    """What NetworkPolicies say, by the rules of Kubernetes for ingress."""

    def __init__(self, objects):
        self.policies = [o["spec"] for o in objects if o["kind"] == "NetworkPolicy"]
        self.pods = {
            o["metadata"]["name"]: o["spec"]["template"]
            for o in objects
            if "template" in o.get("spec", {})
        }

    def admits(self, name, port, namespace):
        """Whether a pod of `namespace` (None: from outside of all pods) reaches a port."""
        labels = self.pods[name]["metadata"]["labels"]
        about = [
            p for p in self.policies if selects({"matchLabels": {}, **p["podSelector"]}, labels)
        ]
        rules = [rule for policy in about for rule in policy.get("ingress", [])]
        return not about or any(self.matches(rule, port, namespace) for rule in rules)

    @staticmethod
    def matches(rule, port, namespace):
        """Whether one rule lets this through."""
        if port not in [each["port"] for each in rule.get("ports", [{"port": port}])]:
            return False
        if "from" not in rule:
            return True
        own = {"kubernetes.io/metadata.name": namespace}
        return any(selects(peer["namespaceSelector"], own) for peer in rule["from"])

    def ports(self, name):
        """The ports that a program's containers name."""
        containers = self.pods[name]["spec"]["containers"]
        return {p["containerPort"] for c in containers for p in c.get("ports", [])}


def test_who_may_speak_to_our_pods(featured):
    """Prometheus to what it scrapes, the API server to the webhook, and nobody to anything else.

    Evaluated here, because the network of the test cluster does not enforce policies.
    """
    network = Network(featured("network-policies", "high-availability", "self-signed"))
    open_to = {
        (name, port, who)
        for name in network.pods
        for port in network.ports(name)
        for who in (None, "monitoring", "default")
        if network.admits(name, port, who)
    }
    scraped = {
        ("hami-webhook", 9396),
        ("hami-scheduler", 9395),
        ("hami-device-plugin", 9397),
        ("hami-monitor", 9394),
    }
    expected = {(name, port, "monitoring") for name, port in scraped}
    expected |= {("hami-webhook", 9443, who) for who in (None, "monitoring", "default")}
    assert open_to == expected


def selects(selector, labels):
    """Whether a label selector takes an object."""
    return selector["matchLabels"].items() <= labels.items()


def test_what_is_selected_is_there(featured):
    """A selector that selects nothing protects, serves and scrapes nothing."""
    objects = featured(
        "high-availability",
        "mig",
        "mig-monitoring",
        "monitoring",
        "network-policies",
        "self-signed",
    )
    pods = [
        o["spec"]["template"]["metadata"]["labels"]
        for o in objects
        if "template" in o.get("spec", {})
    ]
    services = [o["metadata"].get("labels", {}) for o in objects if o["kind"] == "Service"]
    for obj in objects:
        name, spec = obj["metadata"]["name"], obj.get("spec", {})
        if obj["kind"] == "PodDisruptionBudget":
            assert any(selects(spec["selector"], labels) for labels in pods), name
        if obj["kind"] == "NetworkPolicy" and spec["podSelector"]:
            assert any(selects(spec["podSelector"], labels) for labels in pods), name
        if obj["kind"] == "ServiceMonitor":
            assert any(selects(spec["selector"], labels) for labels in services), name
        if obj["kind"] == "Service":
            assert any(spec["selector"].items() <= labels.items() for labels in pods), name


# Why a pod cannot live under Pod Security's level `restricted`: hostPath is outside of `baseline`.
EXCEPTIONS = {
    "hami-core": "puts the library into a folder of the node, as root",
    "hami-device-plugin": "speaks to kubelet and the runtime through folders of the node, as root",
    "hami-monitor": "reads the containers' files and the driver from folders of the node, and by "
    "the node's PIDs whose processes NVML names",
}
SEE_PIDS = {"hami-monitor"}


def test_pod_security_restricted_but_for_three(objects):
    """The rules of the level (kubernetes.io/docs/concepts/security/pod-security-standards)."""
    free = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}
    free |= {"persistentVolumeClaim", "name"}
    exceptions = set()
    for name, spec in pod_specs(objects):
        restricted = spec.get("securityContext", {}).get("runAsNonRoot") is True
        restricted &= all(volume.keys() <= free for volume in spec.get("volumes", []))
        assert not any(spec.get(key) for key in ("hostNetwork", "hostIPC")), name
        assert bool(spec.get("hostPID")) is (name in SEE_PIDS)
        if not restricted:
            exceptions.add(name)
    assert exceptions == set(EXCEPTIONS)


def test_no_container_is_privileged_and_none_may_become_so(objects):
    """Hardened in the base: no capability, no escalation, read-only root, default seccomp."""
    for name, spec in pod_specs(objects):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            security = container["securityContext"]
            assert not security.get("privileged"), name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            profile = {**spec.get("securityContext", {}), **security}["seccompProfile"]
            assert profile == {"type": "RuntimeDefault"}, name
        assert not spec.get("hostNetwork"), name


def test_whoever_is_not_root_says_its_group(objects):
    """Of an image's `USER uid:gid` kubelet takes the uid, and the group is root's then."""
    for name, spec in pod_specs(objects):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            security = {**spec.get("securityContext", {}), **container["securityContext"]}
            assert security["runAsUser"] == 0 or security["runAsGroup"] == names.CONTROL_GROUP, name


def test_images_are_pinned(objects):
    """No image without a version."""
    for name, spec in pod_specs(objects):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert ":" in container["image"], name
            assert not container["image"].endswith(":latest"), name


def test_our_own_pods_never_go_to_our_webhook(objects):
    """Or an outage of the webhook could keep the webhook from starting."""
    for obj in objects:
        if "template" in obj.get("spec", {}):
            labels = obj["spec"]["template"]["metadata"]["labels"]
            assert labels[names.LABEL_WEBHOOK] == names.LABEL_WEBHOOK_IGNORE


def test_the_grant_policy_guards_every_grant_annotation(objects):
    """A key that code writes and the policy does not know could be forged."""
    policy = next(
        o
        for o in objects
        if o["kind"] == "ValidatingAdmissionPolicy" and o["metadata"]["name"] == "hami-grants"
    )
    keys = next(v["expression"] for v in policy["spec"]["variables"] if v["name"] == "keys")
    assert [key for key in names.GRANT_ANNOTATIONS if f"'{key}'" not in keys] == []


def test_no_role_has_a_wildcard(objects):
    """Verb by verb, resource by resource."""
    for obj in objects:
        for rule in obj.get("rules") or []:
            assert "*" not in [word for words in rule.values() for word in words]


def test_image_pins_are_in_one_place():
    """features/release alone knows versions."""
    found = [
        path for path in DEPLOY.rglob("*.yaml") if "newTag" in path.read_text(encoding="utf-8")
    ]
    assert found == [DEPLOY / "features" / "release" / "kustomization.yaml"]


def test_the_webhook_is_asked_about_exactly_our_resources(featured):
    """The registration's conditions are those of the shipped configuration."""
    objects = featured("overwrite-env", "self-signed")
    registration = next(o for o in objects if o["kind"] == "MutatingWebhookConfiguration")
    config = next(o for o in objects if o["metadata"]["name"] == "hami-device-config")
    section = YAML(typ="safe").load(config["data"]["device-config.yaml"])["nvidia"]
    found = [c for webhook in registration["webhooks"] for c in webhook["matchConditions"]]
    assert [condition["name"] for condition in found] == list(CONDITIONS)
    for condition in found:
        expected = CONDITIONS[condition["name"]]((nvidia_family(section),))
        assert condition["expression"].split() == expected.split()


def test_system_namespaces_are_spared(featured):
    """Their pods must start whatever we do."""
    objects = featured("overwrite-env", "self-signed")
    registration = next(o for o in objects if o["kind"] == "MutatingWebhookConfiguration")
    for webhook in registration["webhooks"]:
        [ignored, spared] = webhook["namespaceSelector"]["matchExpressions"]
        assert ignored == {"key": names.LABEL_WEBHOOK, "operator": "NotIn", "values": ["ignore"]}
        assert spared["values"] == ["kube-system", names.NAMESPACE]
        assert webhook["objectSelector"]["matchExpressions"] == [ignored]


def test_the_monitor_may_evict_only_with_its_feature(objects, featured):
    """And then it only asks whether it could, until somebody says otherwise."""

    def may_evict(rendered):
        rules = [rule for o in rendered for rule in o.get("rules") or []]
        return any("pods/eviction" in rule.get("resources", ()) for rule in rules)

    assert not may_evict(objects)
    with_it = featured("audit-evict")
    assert may_evict(with_it)
    (monitor,) = [spec for name, spec in pod_specs(with_it) if name == "hami-monitor"]
    environment = {e["name"]: e.get("value", "x") for e in monitor["containers"][0]["env"]}
    config = Config.parse([], environment)
    assert (config.evict_dry_run, len(config.evict)) == (True, 2)


def test_the_grant_policy_guards_every_family(objects):
    """By a pattern: the chips of a family are the operator's to name."""
    policy = next(
        o
        for o in objects
        if o["kind"] == "ValidatingAdmissionPolicy" and o["metadata"]["name"] == "hami-grants"
    )
    said = {v["name"]: v["expression"] for v in policy["spec"]["variables"]}
    [pattern] = re.findall(r"matches\('(.*?)'\)", said["families"])
    for family in (HYGON, ascend_row("Ascend910B4-1")):
        assert re.match(pattern, family.allocated_annotation)
        assert re.match(pattern, family.to_allocate_annotation)
    assert not re.match(pattern, names.NODE_REGISTER)
    assert said["keys"].endswith("+ variables.families")


def test_kube_scheduler_leaves_our_resources_to_us(objects):
    """No node has memory or cores of cards among its resources: its own check would refuse all."""
    config = next(
        o
        for o in objects
        if (o["kind"], o["metadata"]["name"]) == ("ConfigMap", "hami-kube-scheduler")
    )
    [extender] = YAML(typ="safe").load(config["data"]["config.yaml"])["extenders"]
    managed = extender["managedResources"]
    assert all(resource["ignoredByScheduler"] for resource in managed)
    wanted = {*NVIDIA.resources, *HYGON.resources}
    assert {resource["name"] for resource in managed} == wanted


def test_every_node_agent_that_may_change_nodes_is_kept_to_its_own():
    """The verb `patch` on nodes reaches every node; the policy `hami-own-node` names who has it."""
    files = [*DEPLOY.glob("base/**/*.yaml"), *DEPLOY.glob("features/**/*.yaml")]
    found = [o for file in files for o in YAML(typ="safe").load_all(file.read_text())]
    found = [o for o in found if isinstance(o, dict)]
    agents = {
        o["spec"]["template"]["spec"].get("serviceAccountName")
        for o in found
        if o.get("kind") == "DaemonSet"
    }
    roles = {
        o["metadata"]["name"]
        for o in found
        if o.get("kind") == "ClusterRole"
        for rule in o["rules"]
        if "nodes" in rule.get("resources", ()) and {"patch", "update"} & set(rule["verbs"])
    }
    may = {
        subject["name"]
        for o in found
        if o.get("kind") == "ClusterRoleBinding" and o["roleRef"]["name"] in roles
        for subject in o["subjects"]
    }
    [policy] = [
        o
        for o in found
        if o.get("kind") == "ValidatingAdmissionPolicy" and o["metadata"]["name"] == "hami-own-node"
    ]
    [condition] = policy["spec"]["matchConditions"]
    kept = set(re.findall(r"hami-system:([a-z-]+)", condition["expression"]))
    assert {"hami-device-plugin", "hami-mig-manager"} <= agents & may <= kept
