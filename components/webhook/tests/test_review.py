"""Behaviour of hami_webhook.review: AdmissionReview in, AdmissionReview out."""

import base64
import json

import jsonpatch
import pytest

from hami_webhook.review import Answer, Outcome, ReviewError, decide, decode, encode
from hami_webhook.rules import Rules

RULES = Rules()


def pod(limits=None, **spec):
    """A pod as the API server sends it, with fields that we do not know."""
    container = {"name": "c", "image": "x", "resources": {"limits": limits or {}}, "ports": [{}]}
    return {
        "kind": "Pod",
        "metadata": {"generateName": "p-", "creationTimestamp": None, "x~/y": 1},
        "spec": {"containers": [container], "schedulerName": "default-scheduler", **spec},
        "status": {},
    }


def review(value, version="v1", **request):
    """The body of a question."""
    request = {
        "uid": "u1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "CREATE",
        "namespace": "team",
        "object": value,
        **request,
    }
    body = {"apiVersion": f"admission.k8s.io/{version}", "kind": "AdmissionReview"}
    return json.dumps({**body, "request": request}).encode()


def ask(body, rules=RULES):
    """Question, answer, and the answer's response as the API server reads it."""
    question = decode(body)
    answer = decide(question, rules)
    reply = json.loads(encode(answer, question.uid, question.version))
    assert (reply["kind"], reply["apiVersion"]) == ("AdmissionReview", question.version)
    assert reply["response"]["uid"] == "u1"
    return answer, reply["response"]


def test_a_patch_leads_to_the_completed_pod():
    """Minimal, base64, applied by anyone's JSON patch."""
    before = pod({"nvidia.com/gpumem": "3k"})
    answer, response = ask(review(before))
    assert (answer.outcome, response["allowed"]) == (Outcome.PATCHED, True)
    assert response["patchType"] == "JSONPatch"
    patch = json.loads(base64.b64decode(response["patch"]))
    after = jsonpatch.apply_patch(before, patch)
    assert after["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {operation["path"] for operation in patch} == {
        "/metadata/labels",
        "/spec/schedulerName",
        "/spec/containers/0/resources/limits/nvidia.com~1gpu",
    }


@pytest.mark.parametrize("limits", [{}, {"nvidia.com/gpu": "0"}, {"cpu": "1"}])
def test_a_pod_that_asks_for_nothing_is_allowed_without_a_patch(limits):
    """No label, no scheduler, no patch."""
    answer, response = ask(review(pod(limits)))
    assert answer.outcome is Outcome.ALLOWED
    assert response == {"uid": "u1", "allowed": True}


def test_a_refusal():
    """Code 403, reason Forbidden, every fault in one line."""
    before = pod({"nvidia.com/gpumem": "3G", "nvidia.com/gpucores": "101"})
    answer, response = ask(review(before))
    assert (answer.outcome, response["allowed"]) == (Outcome.REFUSED, False)
    assert (response["status"]["code"], response["status"]["reason"]) == (403, "Forbidden")
    assert "write 3000 (the unit is MiB already); container 'c': " in response["status"]["message"]
    assert "\n" not in response["status"]["message"]
    assert "patch" not in response


def test_a_refusal_stays_readable():
    """Hundreds of faults are counted, not told."""
    containers = [
        {"name": f"c{i}", "resources": {"limits": {"nvidia.com/gpucores": "101"}}}
        for i in range(30)
    ]
    _, response = ask(review(pod(containers=containers)))
    assert response["status"]["message"].endswith("; and 20 more faults")
    _, response = ask(review(pod(containers=containers[:10])))
    assert "more faults" not in response["status"]["message"]


@pytest.mark.parametrize(
    ("name", "rules", "outcome"),
    [
        ("default-scheduler", Rules(), Outcome.PATCHED),
        ("", Rules(), Outcome.PATCHED),
        ("hami-scheduler", Rules(), Outcome.PATCHED),
        ("other", Rules(), Outcome.ALLOWED),
        ("default-scheduler", Rules(take_default=False), Outcome.ALLOWED),
        ("", Rules(take_default=False), Outcome.PATCHED),
        ("hami-scheduler", Rules(take_default=False), Outcome.PATCHED),
        ("other", Rules(scheduler_name=""), Outcome.ALLOWED),
        ("default-scheduler", Rules(scheduler_name=""), Outcome.PATCHED),
    ],
)
def test_whose_pods_are_ours(name, rules, outcome):
    """HAMi's gate: another scheduler's pod passes as it is, even a wrong one."""
    answer, _ = ask(review(pod({"nvidia.com/gpu": "1"}, schedulerName=name)), rules)
    assert answer.outcome is outcome
    if outcome is Outcome.ALLOWED:
        assert answer.message == "pod already has different scheduler assigned"
        wrong = review(pod({"nvidia.com/gpu": "-1"}, schedulerName=name))
        assert ask(wrong, rules)[0].outcome is Outcome.ALLOWED


def test_the_older_version_is_answered_in_kind():
    """HAMi's own registration asks in v1beta1."""
    answer, _ = ask(review(pod({"nvidia.com/gpu": "1"}), version="v1beta1"))
    assert answer.outcome is Outcome.PATCHED


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"kind": {"kind": "PodExecOptions"}},
        {"subResource": "status"},
    ],
)
def test_anything_but_the_creation_of_a_pod_is_allowed(request_):
    """A registration that sends us more than it should does no harm."""
    answer, response = ask(review(pod({"nvidia.com/gpu": "-1"}), **request_))
    assert answer.outcome is Outcome.ALLOWED
    assert response["allowed"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b'{"x":' + b"[" * 100_000, "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "no AdmissionReview"),
        (b"{}", "no AdmissionReview"),
        (b'{"request": 3}', "no AdmissionReview"),
        (review(None), "object is missing"),
        (review("text"), "not a pod"),
        (review({"spec": {"containers": 3}}), "not a pod"),
        (review(pod(), version="v7"), "not known"),
    ],
)
def test_a_body_that_is_no_question(body, says):
    """The text says what was expected."""
    with pytest.raises(ReviewError, match=says):
        decode(body)


def test_the_log_has_a_name_for_a_pod_without_one():
    """Controllers leave the name to the API server."""
    assert decode(review(pod())).name == "team/p-"
    assert decode(review(pod(), name="given")).name == "team/given"


def test_an_error_keeps_the_questions_uid():
    """As far as it was read, so that the API server can match it."""
    with pytest.raises(ReviewError) as caught:
        decode(review(None, version="v1beta1"))
    assert (caught.value.uid, caught.value.version) == ("u1", "admission.k8s.io/v1beta1")
    reply = json.loads(encode(Answer(Outcome.ERRORED, "why", 400), "u1", "admission.k8s.io/v1"))
    assert reply["response"] == {
        "uid": "u1",
        "allowed": False,
        "status": {"code": 400, "message": "why"},
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [("resources", {"limits": 1}), ("env", [{"value": "NVIDIA_VISIBLE_DEVICES"}])],
)
def test_what_is_read_late_has_to_be_right_all_the_same(field, value):
    """Resources and variables are read only where they are needed; a fault there has its place."""
    before = pod({"nvidia.com/gpu": "1"})
    before["spec"]["containers"][0][field] = value
    answer, response = ask(review(before))
    assert (answer.outcome, response["status"]["code"]) == (Outcome.ERRORED, 400)
    assert "request.object is not a pod: " in response["status"]["message"]
