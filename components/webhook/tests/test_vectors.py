"""HAMi's published vectors, through the whole path: admission, then the extender's parser."""

import base64
import json

import jsonpatch
import pytest
from msgspec import convert

from hami_webhook.review import decide, decode, encode
from hami_webhook.rules import Rules
from hamikit.devices import NVIDIA
from hamikit.objects import Pod
from hamikit.shape import ContainerRequest, shape_of

GPU, MEM, PERCENT, CORES, _ = NVIDIA.resources


def admitted(limits):
    """The pod as the API server has it after our answer; None when it is refused."""
    container = {"name": "c", "resources": {"limits": limits}}
    pod = {"metadata": {}, "spec": {"containers": [container]}}
    request = {"uid": "u", "operation": "CREATE", "object": pod}
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    question = decode(json.dumps(body).encode())
    reply = json.loads(encode(decide(question, Rules()), question.uid, question.version))
    if not reply["response"]["allowed"]:
        return None
    patch = json.loads(base64.b64decode(reply["response"]["patch"]))
    return jsonpatch.apply_patch(pod, patch)


@pytest.mark.parametrize(
    ("limits", "added"),
    [
        ({GPU: 1}, {CORES: "100"}),
        ({GPU: 1, MEM: 3000}, {}),
        ({MEM: 3000}, {GPU: "1"}),
        ({CORES: 30}, {GPU: "1"}),
        ({PERCENT: 100}, {GPU: "1", CORES: "100"}),
        ({PERCENT: 50}, {GPU: "1"}),
    ],
)
def test_what_admission_adds(limits, added):
    """And the scheduler becomes ours in every case."""
    pod = admitted(limits)
    assert pod["spec"]["schedulerName"] == "hami-scheduler"
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {**limits, **added}


@pytest.mark.parametrize("limits", [{PERCENT: 150}, {GPU: 1, MEM: "16Gi"}])
def test_what_is_refused(limits):
    """The second HAMi takes for no request at all, and the pod fails on its node."""
    assert admitted(limits) is None


@pytest.mark.parametrize(
    ("limits", "read"),
    [
        ({GPU: 1}, ContainerRequest(1, 0, 100, 100)),
        ({GPU: 2, MEM: 4096}, ContainerRequest(2, 4096, 0, 0)),
        ({GPU: 1, PERCENT: 0}, ContainerRequest(1, 0, 100, 0)),
    ],
)
def test_what_the_scheduler_reads_then(limits, read):
    """By the extender's own parser."""
    [slot] = shape_of(convert(admitted(limits), Pod), NVIDIA).slots
    assert slot.request == read
