"""Dynamic MIG on the cluster: cards change their mode, pods get instances, and all goes back."""

import json
import os

import pytest

from e2e import cards as fake_cards
from e2e import product
from e2e.kube import wait_until
from e2e.pods import ON_AN_A100, container, pod, slice_of
from hamikit import names
from hamikit.mig import decode_mig_allocations

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
SYSTEM = ("-n", "hami-system")
WORKER, OTHER = "hami-worker", "hami-control-plane"
SHOW = "cuprobe info && nvidia-smi -L && exec cuprobe hold 16 forever"
WANTED = {"small": (4000, "1g.5gb", 4864), "large": (18000, "3g.20gb", 20096)}
OVERLAY = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [{deploy}/overlays/kind]
components: [{deploy}/features/mig, {deploy}/features/release]
patches:
  # A real driver is asked through its device nodes; the simulated one keeps its state in a file.
  - target: {{kind: DaemonSet, name: hami-mig-manager}}
    patch: |-
      - op: replace
        path: /spec/template/spec/containers/0/volumeMounts/0/readOnly
        value: false
"""
LAST_CAPABILITY = 542
"""Of four cards with 15 GPU instances of 9 capabilities each, after the driver's own two."""
CAPABILITIES = f"""
mkdir -p /dev/nvidia-caps
for i in $(seq 1 {LAST_CAPABILITY}); do
  [ -e /dev/nvidia-caps/nvidia-cap$i ] || mknod -m 666 /dev/nvidia-caps/nvidia-cap$i c 236 $i
done
"""


def operate(kube, mode):
    """The wish for the worker's cards."""
    config = {"nodeconfig": [{"name": WORKER, "operatingmode": mode}]}
    data = {"config.json": json.dumps(config)}
    metadata = {"name": "hami-node-config", "namespace": "hami-system"}
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def not_in(kube, mode):
    """None when the node announces all its cards in this mode and takes pods again."""
    notes = kube.get("node", WORKER)["metadata"]["annotations"]
    modes = [card.get("mode") for card in json.loads(notes[names.NODE_REGISTER])]
    left = {key: notes[key] for key in (names.NODE_CORDON, names.NODE_MIG_SWITCH) if key in notes}
    if set(modes) == {mode} and not any(left.values()):
        return None
    return f"all in mode {mode}: {modes}, {left}"


@pytest.fixture
def mig(kube, tmp_path):
    """The worker's cards in MIG mode under mig-manager; as before afterwards."""
    kube.node(WORKER, "sh", "-ec", CAPABILITIES)
    deploy = os.path.relpath(product.ROOT / "deploy", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(OVERLAY.format(deploy=deploy))
    operate(kube, "mig")
    kube.kubectl("apply", "-k", str(tmp_path))
    kube.kubectl("rollout", "status", *SYSTEM, "daemonset/hami-mig-manager", "--timeout=120s")
    wait_until(lambda: not_in(kube, names.MODE_MIG), 300)
    yield
    operate(kube, "hami-core")
    wait_until(lambda: not_in(kube, "hami-core"), 300)
    kube.kubectl("delete", "daemonset", *SYSTEM, "hami-mig-manager")
    kube.kubectl("delete", "configmap", *SYSTEM, "hami-node-config")
    kube.kubectl("delete", "-k", str(product.ROOT / "deploy/features/mig"), "--ignore-not-found")
    product.install()


def instances():
    """UUIDs of the instances that there are, by the simulated driver itself."""
    found = fake_cards.ledger(WORKER)["cards"]
    return {ci["uuid"] for card in found for gi in card["mig"]["instances"] for ci in gi["devices"]}


def test_pods_get_instances_and_these_go_with_them(kube, namespace, mig):
    """Two profiles beside a slice elsewhere; each pod sees its own; a new manager knows them."""
    for name, (memory, _, _) in WANTED.items():
        asked = container("c", slice_of(memory=memory), SHOW)
        kube.create(pod(name, namespace, asked, nodeSelector=ON_AN_A100))
    elsewhere = {"kubernetes.io/hostname": OTHER}
    kube.create(
        pod("slice", namespace, container("c", slice_of(memory=3000)), nodeSelector=elsewhere)
    )
    kube.wait_running(namespace, *WANTED, "slice")

    pods = {each["metadata"]["name"]: each for each in kube.pods(namespace)}
    uuids = set()
    for name, (_, profile, memory) in WANTED.items():
        record = pods[name]["metadata"]["annotations"][names.POD_MIG_ALLOCATIONS]
        [made] = decode_mig_allocations(record)
        assert made.profile == profile
        said = kube.wait_log(namespace, name, f"UUID: {made.mig_uuid})")
        assert said.count("MIG-") == 1
        [seen] = json.loads(said.splitlines()[0])["cards"]
        assert seen["total"] == memory << 20
        uuids.add(made.mig_uuid)
    assert instances() == uuids

    kube.kubectl("delete", "pod", *SYSTEM, "-l", "app.kubernetes.io/name=hami-mig-manager", "--now")
    kube.kubectl("delete", "pod", "-n", namespace, "small", "--now")
    large = decode_mig_allocations(
        pods["large"]["metadata"]["annotations"][names.POD_MIG_ALLOCATIONS]
    )[0].mig_uuid
    wait_until(lambda: None if instances() == {large} else f"{large} alone: {instances()}", 120)
    kube.kubectl("delete", "pod", "-n", namespace, "large", "--now")
    wait_until(lambda: ", ".join(instances()) or None, 120)
