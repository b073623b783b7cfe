"""Behaviour of hami_webhook.app: HTTP around the decision, and what is counted."""

import json
import threading
from dataclasses import replace

import falcon.testing
import pytest
from prometheus_client import CollectorRegistry

from hami_webhook.app import create_app
from hami_webhook.metrics import Metrics
from hami_webhook.rules import Rules
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.objects import Metadata
from hamikit.quotas import Quotas, QuotaSpec, ResourceQuota


class Asked:
    """The application with its registry."""

    def __init__(self, **collaborators):
        self.registry = CollectorRegistry()
        self.rules = Rules()
        self.metrics = Metrics(self.registry)
        app = create_app(lambda: self.rules, self.metrics, **collaborators)
        self.client = falcon.testing.TestClient(app)

    def post(self, limits, **more):
        """Ask about a pod with these limits."""
        pod = {"spec": {"containers": [{"name": "c", "resources": {"limits": limits}}]}}
        request = {"uid": "u", "namespace": "ns", "object": pod}
        body = {"apiVersion": "admission.k8s.io/v1", "request": request}
        return self.client.simulate_post("/mutate", json=body, **more)

    def count(self, outcome):
        """How often this was the outcome."""
        return self.registry.get_sample_value("hami_webhook_admissions_total", {"outcome": outcome})


@pytest.mark.parametrize(
    ("limits", "outcome", "allowed"),
    [
        ({"nvidia.com/gpu": "1"}, "patched", True),
        ({"nvidia.com/gpu": "0"}, "allowed", True),
        ({"nvidia.com/gpu": "-1"}, "refused", False),
    ],
)
def test_answers_are_http_200_and_counted(limits, outcome, allowed):
    """A refusal is an answer, not an error of HTTP."""
    asked = Asked()
    reply = asked.post(limits)
    assert (reply.status_code, reply.json["response"]["allowed"]) == (200, allowed)
    assert reply.headers["content-type"] == "application/json"
    assert asked.count(outcome) == 1
    assert asked.registry.get_sample_value("hami_webhook_admission_duration_seconds_count") == 1


def test_every_outcome_has_a_series_from_the_start():
    """An alert on a series that does not exist never fires."""
    asked = Asked()
    assert [asked.count(o) for o in ("allowed", "patched", "refused", "errored")] == [0, 0, 0, 0]


def test_a_body_that_is_no_question_is_answered_with_code_400():
    """The API server shows the text to the user."""
    asked = Asked()
    reply = asked.client.simulate_post(
        "/mutate", body=b"x", headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 200
    assert reply.json["response"]["status"]["code"] == 400
    assert asked.count("errored") == 1


def test_other_content_types_are_refused():
    """As HAMi does."""
    reply = Asked().client.simulate_post("/mutate", body="{}", headers={"Content-Type": "text/xml"})
    assert reply.status_code == 415


def test_parameters_of_the_content_type_do_not_matter():
    """A charset is common."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert Asked().post({}, headers=headers).status_code == 200


def test_a_fault_of_ours_is_an_answer_too():
    """The API server must not wait for one that never comes."""

    def broken(_question, _rules, _quotas):
        raise RuntimeError("boom")

    asked = Asked(decide=broken)
    reply = asked.post({"nvidia.com/gpu": "1"})
    assert reply.json["response"]["uid"] == "u"
    assert reply.json["response"]["status"]["code"] == 500
    assert "boom" not in json.dumps(reply.json)
    assert asked.count("errored") == 1


def test_answers_do_not_depend_on_each_other():
    """Several at once, as waitress' threads do it."""
    asked = Asked()
    threads = [threading.Thread(target=asked.post, args=({"nvidia.com/gpu": "1"},)) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked.count("patched") == 4


def test_each_question_is_asked_under_the_rules_of_its_time():
    """A change of the configuration needs no restart."""
    asked = Asked()
    other = {"example.com/gpu": "1"}
    asked.post(other)
    asked.rules = Rules(families=(replace(NVIDIA, count="example.com/gpu"),))
    asked.post(other)
    assert (asked.count("allowed"), asked.count("patched")) == (1, 1)


def test_the_quotas_of_the_pods_namespace_count():
    """As they are at the moment of the question."""
    quotas = Quotas()
    asked = Asked(quotas=quotas)
    spec = QuotaSpec({"limits.nvidia.com/gpumem": "1000"})
    quotas.on_change(Change(None, ResourceQuota(Metadata(name="q", namespace="ns"), spec)))
    reply = asked.post({"nvidia.com/gpumem": "3000"})
    assert "exceeding resource quota: q allows" in reply.json["response"]["status"]["message"]
    assert asked.post({"nvidia.com/gpumem": "1000"}).json["response"]["allowed"]


@pytest.mark.parametrize(("fault", "valid", "outcome"), [("x", 0, "refused"), ("", 1, "loaded")])
def test_changes_of_the_configuration_are_counted(fault, valid, outcome):
    """An alert on the gauge finds a file that nobody looks at."""
    asked = Asked()
    value = asked.registry.get_sample_value
    assert value("hami_webhook_config_valid") == 1
    asked.metrics.config_changed(fault)
    assert value("hami_webhook_config_valid") == valid
    assert value("hami_webhook_config_reloads_total", {"outcome": outcome}) == 1
