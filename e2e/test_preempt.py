"""A pod with a higher priority evicts exactly whom it needs, or nobody."""

import json
import subprocess

import pytest

from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of

pytestmark = pytest.mark.cluster
NODE = "hami-worker"
WHOLE_CARD = 40960
BLOCKER = {"example.com/role": "blocker"}
EXPLAIN = ("exec", "-n", "hami-system", "deploy/hami-scheduler", "-c", "extender", "--")


@pytest.fixture
def classes(kube, namespace):
    """Two priorities of the test's own."""
    names = {"low": f"{namespace}-low", "high": f"{namespace}-high"}
    for level, name in names.items():
        value = 10 if level == "low" else 1000
        metadata = {"name": name}
        kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
        kube.create({**kind, "metadata": metadata, "value": value})
    yield names
    kube.kubectl("delete", "priorityclass", *names.values())


def on_card(name, namespace, uuid, priority, *, blocks=False, **spec):
    """A pod with a whole card of the worker, chosen by its UUID."""
    made = pod(
        name,
        namespace,
        container("c", slice_of(memory=WHOLE_CARD)),
        priorityClassName=priority,
        nodeSelector={"kubernetes.io/hostname": NODE},
        annotations={"nvidia.com/use-gpuuuid": uuid},
        **spec,
    )
    made["metadata"]["labels"] = dict(BLOCKER) if blocks else {}
    return made


def away_from_blockers():
    """A rule of kube-scheduler's own, which evicting the blocker would satisfy."""
    term = {"labelSelector": {"matchLabels": BLOCKER}, "topologyKey": "kubernetes.io/hostname"}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return {"podAntiAffinity": required}


def explain(kube, namespace, name):
    """What the operator's one command says."""
    return kube.kubectl(*EXPLAIN, "hami-explain", f"{namespace}/{name}")


def test_exactly_whom_it_needs(kube, namespace, cards, classes, audit):
    """kube-scheduler proposes the blocker; whoever has the card goes, too; the third stays."""
    first, second, third, _ = (card["id"] for card in cards[NODE])
    low, high = classes["low"], classes["high"]
    kube.create(
        on_card("blocker", namespace, first, low, blocks=True),
        on_card("holder", namespace, second, low),
        on_card("bystander", namespace, third, low),
    )
    kube.wait_running(namespace, "blocker", "holder", "bystander")
    urgent = on_card("urgent", namespace, second, high, affinity=away_from_blockers())
    kube.create(urgent)
    kube.wait_running(namespace, "urgent")
    left = {p["metadata"]["name"] for p in kube.pods(namespace)}
    assert left == {"urgent", "bystander"}
    assert f"is bound to {NODE}" in explain(kube, namespace, "urgent")
    assert audit() == []


def test_nobody_goes_in_vain(kube, namespace, cards, classes):
    """The card belongs to an equal: the blocker's end would not help, so it stays."""
    first, second, *_ = (card["id"] for card in cards[NODE])
    low, high = classes["low"], classes["high"]
    kube.create(
        on_card("blocker", namespace, first, low, blocks=True),
        on_card("equal", namespace, second, high),
    )
    kube.wait_running(namespace, "blocker", "equal")
    kube.create(on_card("urgent", namespace, second, high, affinity=away_from_blockers()))

    def considered():
        said = kube.said(namespace, "urgent")
        return None if "preemption" in said.lower() else f"a word on preemption in {said!r}"

    wait_until(considered, 120)
    kube.wait_running(namespace, "blocker", "equal")
    text = explain(kube, namespace, "urgent")
    assert "CardInsufficientMemory" in text
    assert f"{namespace}/equal" in text


def test_explain_from_the_command_line(kube, namespace):
    """What is unknown is one line and an exit status; what waits is told card by card."""
    with pytest.raises(subprocess.SubprocessError, match="there is no pod"):
        explain(kube, namespace, "nobody")
    kube.create(pod("hundred", namespace, container("c", slice_of(gpu=100, memory=1000))))

    def told():
        said = explain(kube, namespace, "hundred")
        return None if "NodeInsufficientDevice" in said else f"the reason in {said!r}"

    wait_until(told, 60)
    token = kube.kubectl("create", "token", "-n", namespace, "default").strip()
    script = (
        "import sys, urllib.request, urllib.error\n"
        "request = urllib.request.Request('http://127.0.0.1:9381/state')\n"
        "request.add_header('Authorization', 'Bearer ' + sys.argv[1])\n"
        "try:\n    urllib.request.urlopen(request, timeout=10)\n"
        "except urllib.error.HTTPError as error:\n    print(error.read().decode())\n"
    )
    said = json.loads(kube.kubectl(*EXPLAIN, "/app/bin/python", "-c", script, token))
    assert "may not get /state" in said["error"]
