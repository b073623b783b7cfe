"""The manifests say what this program prints and does."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from hami_webhook.conditions import match_condition
from hami_webhook.config import REGISTRATION, SECRET, SERVICE, parse
from hamikit import names
from hamikit.deviceconfig import nvidia_family

DEPLOY = Path(__file__).parents[3] / "deploy"


def documents(path):
    """Every object of a manifest by its kind."""
    found = YAML(typ="safe").load_all((DEPLOY / path).read_text(encoding="utf-8"))
    return {document["kind"]: document for document in found}


@pytest.fixture
def registration():
    """The registration as it is applied."""
    return documents("base/webhook/registration.yaml")["MutatingWebhookConfiguration"]


def test_the_condition_is_the_one_for_the_shipped_resource_names(registration):
    """Whoever renames a resource must print the condition anew."""
    text = documents("base/config/device-config.yaml")["ConfigMap"]["data"]["device-config.yaml"]
    family = nvidia_family(YAML(typ="safe").load(text)["nvidia"])
    [condition] = registration["webhooks"][0]["matchConditions"]
    assert "".join(condition["expression"].split()) == "".join(match_condition((family,)).split())


def test_the_registration_calls_what_we_serve(registration):
    """Name, path and Service; only creations, and not twice with different results."""
    [webhook] = registration["webhooks"]
    assert registration["metadata"]["name"] == REGISTRATION
    assert webhook["clientConfig"]["service"] == {
        "name": SERVICE,
        "namespace": names.NAMESPACE,
        "path": "/mutate",
        "port": 443,
    }
    assert [rule["operations"] for rule in webhook["rules"]] == [["CREATE"]]
    assert webhook["failurePolicy"] == "Fail"
    assert webhook["sideEffects"] == "None"


def test_roles_allow_exactly_what_we_do():
    """Verb by verb, by name where the API can do that."""
    found = documents("base/webhook/role.yaml")
    events = {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}
    assert found["Role"]["rules"] == [events]
    assert documents("features/self-signed/role.yaml")["Role"]["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [SECRET],
            "verbs": ["get", "patch"],
        },
    ]
    assert found["ClusterRole"]["rules"] == [
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": [REGISTRATION],
            "verbs": ["get", "patch"],
        },
        {"apiGroups": [""], "resources": ["resourcequotas"], "verbs": ["list", "watch"]},
    ]


def test_the_deployment_gives_us_arguments_that_we_take():
    """A flag that does not exist would be a crash loop; time enough for an orderly end."""
    spec = documents("base/webhook/deployment.yaml")["Deployment"]["spec"]["template"]["spec"]
    both = [*spec.get("initContainers", []), *spec["containers"]]
    configs = {container["name"]: parse(container["args"], {}) for container in both}
    assert set(configs) == {"certificates", "webhook"}
    serving = configs["webhook"]
    assert serving.drain_s + serving.finish_s < spec["terminationGracePeriodSeconds"]
    assert serving.certificate_dir == configs["certificates"].certificate_dir
    assert serving.device_config_file == configs["certificates"].device_config_file
