"""Behaviour of hami_webhook.app: HTTP around the decision, and what is counted."""

import json
import threading

import falcon.testing
import pytest
from prometheus_client import CollectorRegistry

from hami_webhook.app import create_app
from hami_webhook.metrics import Metrics
from hami_webhook.rules import Rules


class Asked:
    """The application with its registry."""

    def __init__(self, **collaborators):
        self.registry = CollectorRegistry()
        app = create_app(Rules(), Metrics(self.registry), **collaborators)
        self.client = falcon.testing.TestClient(app)

    def post(self, limits, **more):
        """Ask about a pod with these limits."""
        pod = {"spec": {"containers": [{"name": "c", "resources": {"limits": limits}}]}}
        body = {"apiVersion": "admission.k8s.io/v1", "request": {"uid": "u", "object": pod}}
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

    def broken(_question, _rules):
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
