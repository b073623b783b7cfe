"""Where a pod that does not exist would go."""

import json

import pytest
from explain_world import ExplainWorld
from extender_kit import container, device, make_node, make_pod, pod_object

from hami_extender.simulate import YAML_LIMIT, ManifestError, read_manifest

YAML_POD = b"""
apiVersion: v1
kind: Pod
metadata: {name: train, namespace: science}
spec:
  containers:
    - name: main
      resources:
        limits: {nvidia.com/gpu: 1, nvidia.com/gpumem: 3000}
"""


def test_json_and_yaml():
    """Both are read; what has no name gets one."""
    assert read_manifest(YAML_POD).key == "science/train"
    assert read_manifest(json.dumps(pod_object("p")).encode()).key == "default/p"
    bare = {"spec": {"containers": [container(gpu=1)]}}
    assert read_manifest(json.dumps(bare).encode()).key == "default/simulated"


@pytest.mark.parametrize("kind", ["Deployment", "CronJob"])
def test_workloads(kind):
    """Their pod template counts, with their own name."""
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container(gpu=1)]}}
    spec = {"template": template}
    if kind == "CronJob":
        spec = {"jobTemplate": {"spec": spec}}
    document = {"kind": kind, "metadata": {"name": "w", "namespace": "x"}, "spec": spec}
    pod = read_manifest(json.dumps(document).encode())
    assert pod.key == "x/w"
    assert pod.metadata.labels == {"a": "b"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no object"),
        (b"{", "not JSON"),
        (b"[1]", "no object"),
        (b"a: [", "neither JSON nor YAML"),
        (b"\xff\xfe", "neither JSON nor YAML"),
        (b"[" * 5000, "neither JSON nor YAML"),
        (b"kind: Service", "has no pod template"),
        (b'{"kind": "Pod", "spec": {"containers": 3}}', "not a pod: Expected `array`"),
        (b'{"kind": "Pod"}', "no containers"),
        (b"a" * (YAML_LIMIT + 1), "send JSON"),
    ],
)
def test_what_is_no_pod(body, said):
    """One line that says why."""
    with pytest.raises(ManifestError, match=said) as caught:
        read_manifest(body)
    assert "\n" not in str(caught.value)


def test_a_placement():
    """The best node and its cards, by the policy, and the others that fit in order."""
    world = ExplainWorld(make_node("n", device("a")), make_node("m", device("b")))
    world.use("n", "a", 5000)
    answer = world.simulator.simulate(make_pod("p", container("main", gpu=1, mem=1000)))
    assert (answer.state, answer.node) == ("fits", "n")
    assert [(d.container, d.uuid, d.memory_mib) for d in answer.devices] == [("main", "a", 1000)]
    assert [node.node for node in answer.nodes] == ["n", "m"]
    spread = make_pod("p", POD_NODE_POLICY="spread")
    assert world.simulator.simulate(spread).node == "m"


def test_no_placement():
    """The same reasons as a waiting pod would get."""
    world = ExplainWorld(make_node("n", device("a", devmem=10)))
    pod = make_pod("p")
    answer = world.simulator.simulate(pod)
    assert (answer.state, answer.node, answer.devices) == ("does not fit", "", ())
    assert answer.reasons == {"1/1 CardInsufficientMemory": 1}
    world.add("p")
    assert answer.nodes == world.explain().nodes


@pytest.mark.parametrize(
    ("limits", "state", "said"),
    [
        ({"gpu": 1, "cores": 500}, "invalid", "InvalidDeviceRequest: container 'main'"),
        ({}, "not ours", "asks for none of our devices"),
    ],
)
def test_requests_that_ask_for_nothing(limits, state, said):
    """Invalid, or none."""
    answer = ExplainWorld().simulator.simulate(make_pod("p", container(**limits)))
    assert answer.state == state
    assert said in answer.text


def test_what_admission_would_add():
    """Memory alone means one card, a bare card all of its compute."""
    world = ExplainWorld(make_node("n", device("a"), device("b", 1)))
    answer = world.simulator.simulate(make_pod("p", container("c", mem=100), container("d", gpu=1)))
    assert [(d.container, d.memory_mib, d.cores) for d in answer.devices] == [
        ("c", 100, 0),
        ("d", 8000, 100),
    ]
