"""The rendered manifests: valid, hardened, and in step with the code."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from kubernetes_validate import validate
from ruamel.yaml import YAML

from hami_webhook.conditions import match_condition
from hamikit import names
from hamikit.deviceconfig import nvidia_family

DEPLOY = Path(__file__).parents[1]
OVERLAYS = ("local", "kind")
# The oldest and the newest Kubernetes that DESIGN.md D1 promises and the validator knows.
VERSIONS = ("1.30", "1.34")

if shutil.which("kubectl") is None:
    # `make e2e` brings one along and runs these again.
    pytest.skip("kubectl renders the manifests; install it", allow_module_level=True)


def rendered(overlay):
    """All objects of an overlay."""
    command = ["kubectl", "kustomize", str(DEPLOY / "overlays" / overlay)]
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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", [*OVERLAYS, "uninstall"])
def test_every_object_follows_its_schema(overlay, version):
    """Strictly: an unknown field is an error."""
    for obj in rendered(overlay):
        validate(obj, version, strict=True)


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


def test_the_webhook_is_asked_about_exactly_our_resources(objects):
    """The registration's condition is the one the webhook prints for the shipped configuration."""
    registration = next(o for o in objects if o["kind"] == "MutatingWebhookConfiguration")
    config = next(o for o in objects if o["metadata"]["name"] == "hami-device-config")
    section = YAML(typ="safe").load(config["data"]["device-config.yaml"])["nvidia"]
    (condition,) = registration["webhooks"][0]["matchConditions"]
    expected = match_condition(nvidia_family(section))
    assert condition["expression"].split() == expected.split()
