"""The HTTP face."""

import json

import falcon.testing
import pytest
from extender_kit import pod_object

from hami_extender import app
from hami_extender.wire import FilterResult


class Selects:
    """Answers as it is told and keeps what it was asked."""

    def __init__(self):
        self.asked, self.gap = [], ""

    def missing(self):
        return self.gap

    def preempt(self, args):
        self.asked.append(args)
        return {name: victims for name, victims in args.nodes.items() if name != "dropped"}

    def filter(self, args):
        self.asked.append(args)
        return FilterResult(node_names=args.node_names)

    def prioritize(self, args):
        self.asked.append(args)
        return dict.fromkeys(args.node_names, 3)

    def bind(self, args):
        self.asked.append(args)
        return f"no room on {args.node}"


@pytest.fixture
def face():
    """A client without a socket, the verbs behind it, and what was observed."""
    verbs, seen = Selects(), []
    client = falcon.testing.TestClient(
        app.create_app(verbs, verbs, verbs, observe=lambda verb, _seconds: seen.append(verb))
    )
    return client, verbs, seen


ARGS = json.dumps({"Pod": pod_object("p"), "Nodes": None, "NodeNames": ["a", "b"]})


def test_filter(face):
    """Names in, a filter result out."""
    client, verbs, seen = face
    answer = client.simulate_post("/filter", body=ARGS)
    assert answer.status_code == 200
    assert answer.json["NodeNames"] == ["a", "b"]
    assert verbs.asked[0].pod.key == "default/p"
    assert seen == ["filter"]


def test_prioritize(face):
    """A host priority list."""
    client, _, seen = face
    answer = client.simulate_post("/prioritize", body=ARGS)
    assert answer.json == [{"Host": "a", "Score": 3}, {"Host": "b", "Score": 3}]
    assert seen == ["prioritize"]


def test_bind(face):
    """What is wrong comes back in Error, as HTTP 200."""
    client, _, seen = face
    body = {"PodName": "p", "PodNamespace": "d", "PodUID": "u", "Node": "n"}
    answer = client.simulate_post("/bind", body=json.dumps(body))
    assert (answer.status_code, answer.json) == (200, {"Error": "no room on n"})
    assert seen == ["bind"]


PREEMPTION = """{"Pod": {"metadata": {"name": "p", "namespace": "default", "uid": "u"}},
"NodeNameToVictims": null, "NodeNameToMetaVictims": {
"a": {"Pods": [{"UID": "v1"}, {"UID": "v2"}], "NumPDBViolations": 1},
"dropped": {"Pods": [{"UID": "v3"}], "NumPDBViolations": 0}}}"""
"""As kube-scheduler 1.34 sends it to an extender with nodeCacheCapable."""


def test_preempt(face):
    """Victims by UID in, victims by UID out."""
    client, verbs, seen = face
    answer = client.simulate_post("/preempt", body=PREEMPTION)
    assert answer.status_code == 200
    assert answer.json == {
        "NodeNameToMetaVictims": {
            "a": {"Pods": [{"UID": "v1"}, {"UID": "v2"}], "NumPDBViolations": 1}
        }
    }
    assert verbs.asked[0].pod.key == "default/p"
    assert seen == ["preempt"]


def test_preempt_with_whole_pods(face):
    """An uncached caller sends the victims themselves; the answer is by UID all the same."""
    client, _, _ = face
    victim = {"metadata": {"name": "v", "uid": "v1"}, "spec": {"containers": []}}
    nodes = {"a": {"Pods": [victim], "NumPDBViolations": 0}, "b": {"Pods": None}}
    body = json.dumps({"Pod": pod_object("p"), "NodeNameToVictims": nodes})
    answer = client.simulate_post("/preempt", body=body)
    assert answer.json["NodeNameToMetaVictims"] == {
        "a": {"Pods": [{"UID": "v1"}], "NumPDBViolations": 0},
        "b": {"Pods": [], "NumPDBViolations": 0},
    }


def test_preempt_before_we_know_the_cluster(face):
    """Nobody is evicted on half a view."""
    client, verbs, _ = face
    verbs.gap = "starting"
    assert client.simulate_post("/preempt", body=PREEMPTION).status_code == 503
    assert verbs.asked == []


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "{}",
        '{"Pod": 3}',
        '{"Pod": {}, "NodeNameToMetaVictims": []}',
        '{"Pod": {}, "NodeNameToMetaVictims": {"a": {"Pods": [{"UID": 1}]}}}',
        '{"Pod": {}, "NodeNameToMetaVictims": {"a": {"Pods": [{}]}}}',
        '{"Pod": {}, "NodeNameToMetaVictims": {"a": {"Pods": [], "NumPDBViolations": "x"}}}',
    ],
)
def test_bad_preemptions(face, body):
    """400, and nobody is asked."""
    client, verbs, _ = face
    assert client.simulate_post("/preempt", body=body).status_code == 400
    assert verbs.asked == []


def test_bad_bodies(face):
    """They are answered, not crashed on."""
    client, verbs, _ = face
    assert "not a JSON object" in client.simulate_post("/filter", body="{").json["Error"]
    assert "binding args miss" in client.simulate_post("/bind", body="{}").json["Error"]
    assert client.simulate_post("/prioritize", body="{}").status_code == 400
    assert verbs.asked == []


def test_a_body_that_is_too_long(face):
    """It is not read; the error says the limit."""
    client, _, _ = face
    headers = {"Content-Length": str(app.MAX_BODY + 1)}
    answer = client.simulate_post("/filter", body="{}", headers=headers)
    assert f"at most {app.MAX_BODY} are read" in answer.json["Error"]


def test_ten_thousand_nodes(face):
    """The largest cluster's names fit (HAMi 8.16)."""
    client, _, _ = face
    names = [f"node-{i:05d}.a-rather-long-domain-name.example" for i in range(50_000)]
    body = json.dumps({"Pod": pod_object("p"), "NodeNames": names})
    assert client.simulate_post("/filter", body=body).json["NodeNames"] == names


def test_unknown_paths_and_methods(face):
    """Nothing else is served here."""
    client, _, _ = face
    assert client.simulate_get("/filter").status_code == 405
    assert client.simulate_post("/metrics").status_code == 404
