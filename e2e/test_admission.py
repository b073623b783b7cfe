"""Admission on the real API server: what it makes of our patches, and what happens without us."""

import json
import random
import subprocess
from pathlib import Path

import pytest
from msgspec import convert
from ruamel.yaml import YAML

from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of
from e2e.webhooks import SYSTEM, gone, look_again, value, webhooks
from hamikit.devices import NVIDIA
from hamikit.objects import Pod
from hamikit.shape import shape_of

pytestmark = pytest.mark.cluster
WEBHOOK = (*SYSTEM, "deployment/hami-webhook")
IDLE = "exec sleep 1000"
GPU, MEM, PERCENT, CORES, PRIORITY = NVIDIA.resources


def random_limits(dice):
    """A container's wish, right by the rules, rarely complete."""
    wish = {
        GPU: str(dice.randint(0, 3)),
        MEM: dice.choice(["0", "1", "3k", "4096"]),
        PERCENT: str(dice.choice([0, 50, 100])),
        CORES: str(dice.randint(0, 100)),
        PRIORITY: dice.choice(["0", "1", "1000m"]),
    }
    chosen = {name: wish[name] for name in wish if dice.random() < 0.4}
    if chosen.get(GPU) == "0":
        chosen = {GPU: "0"}
    elif set(chosen) == {PRIORITY}:
        chosen[GPU] = "1"
    return chosen


def random_pod(dice, name, namespace):
    """A pod with init containers, sidecars, variables of ours and of others."""
    variables = ["NVIDIA_VISIBLE_DEVICES", "CUDA_TASK_PRIORITY", "OTHER"]

    def one(index, kind):
        env = [{"name": dice.choice(variables), "value": "1"} for _ in range(dice.randint(0, 4))]
        more = {"restartPolicy": "Always"} if kind == "sidecar" else {}
        return container(f"{kind}-{index}", random_limits(dice), env=env, **more)

    inits = [one(i, dice.choice(["init", "sidecar"])) for i in range(dice.randint(0, 2))]
    apps = [one(i, "app") for i in range(dice.randint(1, 3))]
    return pod(name, namespace, *apps, initContainers=inits)


def dry_run(kube, pods, *, check=True):
    """What the API server would store, in order; nothing where it refuses and that is fine."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": pods})
    command = ("create", "--dry-run=server", "-o", "json", "-f", "-")
    said = kube.kubectl(*command, stdin=text, check=check).strip()
    found = []
    while said:  # one object after the other
        value, end = json.JSONDecoder().raw_decode(said)
        found.append(value)
        said = said[end:].strip()
    return found


def test_random_pods_pass_the_api_servers_own_validation(kube, namespace):
    """Once more through admission changes nothing; the extender reads the author's wish."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    asked = [random_pod(dice, f"p{index}", namespace) for index in range(60)]
    once = dry_run(kube, asked)
    again = []
    for before, after in zip(asked, once, strict=True):
        shape = shape_of(convert(after, Pod), NVIDIA)
        device = not shape.empty
        assert (after["spec"]["schedulerName"] == "hami-scheduler") is device, before
        assert (after["metadata"].get("labels") == {"hami.io/device-pod": "true"}) is device
        originals = [*before["spec"]["initContainers"], *before["spec"]["containers"]]
        for original, slot in zip(originals, shape.slots, strict=True):
            check(original["resources"]["limits"], slot.request)
        again.append({**after, "metadata": {**before["metadata"], **labels(after)}})
    for first, second in zip(once, dry_run(kube, again), strict=True):
        assert second["spec"] == first["spec"]


def labels(value):
    """A pod's labels, as a part of metadata."""
    return {"labels": value["metadata"].get("labels", {})}


def check(limits, request):
    """What the extender reads against what the container's author wrote."""
    count = int(limits.get(GPU, bool({MEM, PERCENT, CORES} & limits.keys())))
    assert (request.count if request else 0) == count, limits
    if request and int(limits.get(MEM, "0").replace("k", "000")):
        assert request.memory_mib == int(limits[MEM].replace("k", "000"))
    if request and CORES in limits:
        assert request.cores == int(limits[CORES])


def test_what_can_be_added_later_is_no_device(kube, namespace):
    """Without a registration: the API server refuses it, and a policy what it would let through."""
    some = {"cpu": "10m"}
    kube.create(pod("plain", namespace, container("none", {}, IDLE), container("some", some, IDLE)))
    kube.wait_running(namespace, "plain")
    found = kube.get("pod", "-n", namespace, "plain")
    late = {"name": "late", "image": "x", "resources": {"limits": {GPU: "1"}}}
    found["spec"]["ephemeralContainers"] = [late]
    path = f"/api/v1/namespaces/{namespace}/pods/plain/ephemeralcontainers"
    with pytest.raises(
        subprocess.SubprocessError, match="cannot be set for an Ephemeral Container"
    ):
        kube.kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps(found))

    def resize(name, limits):
        change = {"spec": {"containers": [{"name": name, "resources": {"limits": limits}}]}}
        arguments = ("plain", "-n", namespace, "--subresource=resize", "-p", json.dumps(change))
        return kube.kubectl("patch", "pod", *arguments)

    with pytest.raises(subprocess.SubprocessError, match="only cpu and memory"):
        resize("some", {GPU: "1"})
    # Kubernetes 1.34 looks at containers that had resources before, and at no others.
    with pytest.raises(subprocess.SubprocessError, match="extended resources such as devices"):
        resize("none", {GPU: "1"})
    resize("some", {"cpu": "20m"})


def test_a_quota_that_never_holds_the_pod_is_told_at_once(kube, namespace):
    """From the informer, so a moment after the quota was made."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "team", "namespace": namespace},
        "spec": {"hard": {f"limits.{MEM}": "4000"}},
    }
    kube.create(quota)
    asked = pod("big", namespace, container("c", slice_of(gpu=2, memory=3000)))

    def refused():
        return "the refusal" if dry_run(kube, [asked], check=False) else None

    wait_until(refused, 60)
    said = kube.refusal(asked)
    assert f"team allows limits.{MEM}: 4000" in said
    assert "alone asks for 6000" in said
    kube.create(pod("fits", namespace, container("c", slice_of(gpu=1, memory=1000))))


@pytest.fixture
def without_webhook(kube):
    """No webhook for a while."""
    replicas = kube.get(*WEBHOOK)["spec"]["replicas"]
    kube.kubectl("scale", *WEBHOOK, "--replicas=0")
    wait_until(lambda: gone(kube), 120)
    yield
    kube.kubectl("scale", *WEBHOOK, f"--replicas={replicas}")
    kube.kubectl("rollout", "status", *WEBHOOK, "--timeout=240s")


@pytest.mark.timeout(600)
def test_an_outage_holds_up_device_pods_only(kube, namespace, request):
    """They get a clear error, and are created when the webhook is back."""
    device = pod("device", namespace, container("c", slice_of(memory=500)))
    request.getfixturevalue("without_webhook")
    kube.create(pod("plain", namespace, container("c", {}, IDLE)))
    assert 'failed calling webhook "vgpu.hami.io"' in kube.refusal(device)
    kube.kubectl("scale", *WEBHOOK, "--replicas=1")

    def created():
        made = kube.kubectl("create", "-f", "-", stdin=json.dumps(device), check=False)
        return None if made else "the creation"

    wait_until(created, 120)
    kube.wait_running(namespace, "plain", "device")


@pytest.fixture
def configured(kube):
    """Change device-config.yaml; as it was, afterwards."""
    before = kube.get("configmap", *SYSTEM, "hami-device-config")["data"]["device-config.yaml"]

    def write(text):
        patch = {"data": {"device-config.yaml": text}}
        kube.kubectl("patch", "configmap", *SYSTEM, "hami-device-config", "-p", json.dumps(patch))
        look_again(kube)

    yield before, write
    write(before)


def valid(kube):
    """Whether the configuration is in force."""
    [pod] = webhooks(kube)
    return value(kube, pod, "hami_webhook_config_valid") == "1.0"


@pytest.mark.timeout(600)
def test_a_broken_configuration_is_told_and_does_no_harm(kube, namespace, configured):
    """Metrics and an event with the line; pods are admitted by the last good one."""
    before, write = configured
    write(before.replace("defaultCores: 0", "defaultCores: 1000"))
    wait_until(lambda: "the fault in metrics" if valid(kube) else None, 120)
    wait_until(
        lambda: (
            None
            if any(
                "defaultCores: 1000" in text
                for text in kube.events("hami-system", "hami-device-config")
            )
            else "the event that tells of the fault"
        ),
        60,
    )
    kube.create(pod("ok", namespace, container("c", slice_of(memory=500))))
    write(before)
    wait_until(lambda: None if valid(kube) else "the mended configuration", 120)


@pytest.fixture
def overwrite_env(kube, configured):
    """The feature of that name on the cluster."""
    before, write = configured
    held = kube.get("mutatingwebhookconfiguration", "hami-webhook")
    patch = json.dumps(read_feature())
    kube.kubectl(
        "patch", "mutatingwebhookconfiguration", "hami-webhook", "--type=json", "-p", patch
    )
    write(before.replace("overwriteEnv: false", "overwriteEnv: true"))
    yield
    index = len(held["webhooks"])
    away = json.dumps([{"op": "remove", "path": f"/webhooks/{index}"}])
    kube.kubectl("patch", "mutatingwebhookconfiguration", "hami-webhook", "--type=json", "-p", away)


def read_feature():
    """Its patch; trust is written into the new entry by the webhook itself."""
    path = Path(__file__).parents[1] / "deploy/features/overwrite-env/registration.yaml"
    return json.loads(json.dumps(YAML(typ="safe").load(path.read_text())))


@pytest.mark.timeout(600)
def test_who_asks_for_nothing_sees_no_card(kube, namespace, overwrite_env):
    """With `overwriteEnv` an image that brings NVIDIA_VISIBLE_DEVICES=all along is overruled."""
    env = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]
    plain = pod("plain", namespace, container("c", {}, IDLE, env=env))

    def overruled():
        [found] = dry_run(kube, [plain])
        [value] = found["spec"]["containers"][0]["env"]
        return None if value["value"] == "none" else f"none in place of {value['value']}"

    wait_until(overruled, 150)
    kube.create(plain)
    kube.wait_running(namespace, "plain")
    said = kube.exec(namespace, "plain", "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES; ls /dev")
    assert said.split()[0] == "none"
    assert "nvidia0" not in said
