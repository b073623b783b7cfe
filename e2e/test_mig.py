"""Dynamic MIG on the cluster: cards change their mode, pods get instances, and all goes back."""

import json
import os

import pytest

from e2e import cards as fake_cards
from e2e.kube import wait_until
from e2e.metrics import samples, values
from e2e.mig import (
    MEMORY,
    OTHER,
    SHOW,
    SYSTEM,
    WORKER,
    cards,
    configure,
    destroy,
    disagreement,
    divided,
    instances,
    operate,
    records,
)
from e2e.migstream import Stream
from e2e.pods import ON_AN_A100, container, pod, slice_of

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]
PODS = int(os.environ.get("MIG_PODS", "200"))
SEED = int(os.environ.get("MIG_SEED", "8"))
WANTED = {"small": (4000, "1g.5gb"), "large": (18000, "3g.20gb")}


@pytest.fixture(scope="module")
def mig(kube, tmp_path_factory):
    """The worker's cards in MIG mode under mig-manager; as before afterwards."""
    with divided(kube, tmp_path_factory.mktemp("overlay")):
        yield


def test_pods_get_instances_and_these_go_with_them(kube, namespace, mig):
    """Two profiles beside a slice elsewhere; each pod sees its own; a new manager knows them."""
    for name, (memory, _) in WANTED.items():
        asked = container("c", slice_of(memory=memory), SHOW)
        kube.create(pod(name, namespace, asked, nodeSelector=ON_AN_A100))
    elsewhere = {"kubernetes.io/hostname": OTHER}
    kube.create(
        pod("slice", namespace, container("c", slice_of(memory=3000)), nodeSelector=elsewhere)
    )
    kube.wait_running(namespace, *WANTED, "slice")

    pods = {each["metadata"]["name"]: each for each in kube.pods(namespace)}
    uuids = {}
    for name, (_, profile) in WANTED.items():
        [made] = records(pods[name])
        assert made.profile == profile
        said = kube.wait_log(namespace, name, f"UUID: {made.mig_uuid})")
        assert said.count("MIG-") == 1
        [seen] = json.loads(said.splitlines()[0])["cards"]
        assert seen["total"] == MEMORY[profile] << 20
        uuids[name] = made.mig_uuid
    assert instances() == set(uuids.values())
    wait_until(lambda: disagreement(kube), 60)

    kube.kubectl("delete", "pod", *SYSTEM, "-l", "app.kubernetes.io/name=hami-mig-manager", "--now")
    kube.kubectl("delete", "pod", "-n", namespace, "small", "--now")
    alone = {uuids["large"]}
    wait_until(lambda: None if instances() == alone else f"{alone} alone: {instances()}", 120)
    kube.kubectl("delete", "pod", "-n", namespace, "large", "--now")
    wait_until(lambda: ", ".join(instances()) or None, 120)


def test_a_stream_of_pods_with_kills_at_every_step(kube, namespace, mig):
    """Each sees exactly its own instance; one made by hand outlives it; none of ours is left."""
    card = cards()[0]["uuid"]
    by_hand = fake_cards.simulate(WORKER, "cut", card, "1g.5gb", "3").strip()
    try:
        stream = Stream(kube, namespace, PODS, SEED)
        stream.run()
        print(stream.told())
        assert stream.elsewhere > 0, "no pod came to a card that is shared"
        wait_until(lambda: disagreement(kube), 60)
        alone = {by_hand}
        wait_until(lambda: None if instances() == alone else f"{alone} alone: {instances()}", 120)
    finally:
        kube.kubectl("delete", "pod", "--all", "-n", namespace, "--now", "--timeout=120s")
        destroy(by_hand)


def test_instances_made_by_hand_are_asked_for_by_name(kube, namespace, mig):
    """With `migstrategy: mixed`, as NVIDIA's plugin has it; the audit has nothing against it."""
    resource, profile = "nvidia.com/mig-2g.10gb", "2g.10gb"
    by_hand = fake_cards.simulate(WORKER, "cut", cards()[1]["uuid"], profile, "4").strip()
    configure(kube, migstrategy="mixed")
    try:
        wait_until(lambda: not_offered(kube, resource), 180)
        kube.create(pod("static", namespace, container("c", {resource: "1"}, SHOW)))
        kube.wait_running(namespace, "static")
        said = kube.wait_log(namespace, "static", f"UUID: {by_hand})")
        assert said.count("MIG-") == 1
        [seen] = json.loads(said.splitlines()[0])["cards"]
        assert seen["total"] == MEMORY[profile] << 20
        found = samples(kube, "hami-monitor", 9394)
        assert values(found, "hami_audit_finding_processes", namespace=namespace) == []
    finally:
        kube.kubectl("delete", "pod", "--all", "-n", namespace, "--now", "--timeout=120s")
        destroy(by_hand)
        operate(kube, "mig")


def not_offered(kube, resource):
    """None when the worker has one of a resource to give."""
    offered = kube.get("node", WORKER)["status"]["allocatable"]
    return None if offered.get(resource) == "1" else f"{resource} of {WORKER}: {offered}"
