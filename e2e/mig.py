"""Dynamic MIG on the lab's worker: its cards in MIG mode, and what is on them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from e2e import cards as fake_cards
from e2e import product
from e2e.kube import Kube, wait_until
from e2e.lab import config as lab_config
from e2e.metrics import samples
from hamikit import names
from hamikit.mig import MigAllocation, decode_mig_allocations

SYSTEM = ("-n", "hami-system")
WORKER, OTHER = "hami-worker", "hami-control-plane"
SHOW = "cuprobe info && nvidia-smi -L && exec cuprobe hold 16 forever"
MEMORY = {"1g.5gb": 4864, "2g.10gb": 9984, "3g.20gb": 20096, "7g.40gb": 40448}
"""MiB of what is announced of an A100 of 40 GB."""
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
DESTROY = """
import sys, pynvml as n
n.nvmlInit()
for index in range(n.nvmlDeviceGetCount()):
    card = n.nvmlDeviceGetHandleByIndex(index)
    for number in range(n.nvmlDeviceGetMaxMigDeviceCount(card)):
        try:
            device = n.nvmlDeviceGetMigDeviceHandleByIndex(card, number)
        except n.NVMLError_NotFound:
            continue
        if n.nvmlDeviceGetUUID(device) == sys.argv[1]:
            gpu = n.nvmlDeviceGetGpuInstanceById(card, n.nvmlDeviceGetGpuInstanceId(device))
            compute = n.nvmlDeviceGetComputeInstanceId(device)
            n.nvmlComputeInstanceDestroy(n.nvmlGpuInstanceGetComputeInstanceById(gpu, compute))
            n.nvmlGpuInstanceDestroy(gpu)
            sys.exit(0)
sys.exit("no such instance")
"""


def operate(kube: Kube, mode: str) -> None:
    """The wish for the worker's cards."""
    configure(kube, operatingmode=mode)


def configure(kube: Kube, **settings: str) -> None:
    """The worker's own settings."""
    config = {"nodeconfig": [{"name": WORKER, **settings}]}
    data = {"config.json": json.dumps(config)}
    metadata = {"name": "hami-node-config", "namespace": "hami-system"}
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    # kubelet brings it into a pod within a minute or so, and at once when the pod changes.
    ours = ("-l", "app.kubernetes.io/part-of=hami", f"--field-selector=spec.nodeName={WORKER}")
    touched = f"e2e.hami.io/touched={uuid4().hex}"
    kube.kubectl("annotate", "pod", *SYSTEM, *ours, touched, "--overwrite")


def not_in(kube: Kube, mode: str) -> str | None:
    """None when the node announces all its cards in this mode and takes pods again."""
    notes = kube.get("node", WORKER)["metadata"]["annotations"]
    modes = [card.get("mode") for card in json.loads(notes[names.NODE_REGISTER])]
    left = {key: notes[key] for key in (names.NODE_CORDON, names.NODE_MIG_SWITCH) if key in notes}
    if set(modes) == {mode} and not any(left.values()):
        return None
    return f"all in mode {mode}: {modes}, {left}"


def overlay(deploy: Path, folder: Path) -> Path:
    """Make a folder the lab's overlay with mig-manager, out of these manifests."""
    folder.mkdir(exist_ok=True)
    text = OVERLAY.format(deploy=os.path.relpath(deploy, folder))
    (folder / "kustomization.yaml").write_text(text)
    return folder


@contextmanager
def divided(kube: Kube, folder: Path) -> Iterator[None]:
    """The worker's cards in MIG mode under mig-manager; as before afterwards."""
    kube.node(WORKER, "sh", "-ec", CAPABILITIES)
    operate(kube, "mig")
    kube.kubectl("apply", "-k", str(overlay(product.ROOT / "deploy", folder)))
    kube.kubectl("rollout", "status", *SYSTEM, "daemonset/hami-mig-manager", "--timeout=120s")
    wait_until(lambda: not_in(kube, names.MODE_MIG), 300)
    try:
        yield
    finally:
        operate(kube, "hami-core")
        wait_until(lambda: not_in(kube, "hami-core"), 300)
        kube.kubectl("delete", "daemonset", *SYSTEM, "hami-mig-manager")
        kube.kubectl("delete", "configmap", *SYSTEM, "hami-node-config")
        feature = str(product.ROOT / "deploy/features/mig")
        kube.kubectl("delete", "-k", feature, "--ignore-not-found")
        product.install()


def cards() -> list[dict[str, Any]]:
    """The worker's cards, by the simulated driver itself."""
    found: list[dict[str, Any]] = fake_cards.ledger(WORKER)["cards"]
    return found


def instances() -> set[str]:
    """UUIDs of the instances that there are."""
    return {
        ci["uuid"] for card in cards() for gi in card["mig"]["instances"] for ci in gi["devices"]
    }


def destroy(uuid: str) -> None:
    """Take an instance away by hand."""
    lab = lab_config.load()
    state = lab.state / "nodes" / WORKER / "driver" / fake_cards.STATE_IN_ROOT
    environment = {
        **os.environ,
        "FAKEGPU_STATE": str(state),
        "FAKEGPU_DEV": "all",
        "LD_LIBRARY_PATH": str(fake_cards.build_folder()),
    }
    command = [sys.executable, "-c", DESTROY, uuid]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"instance {uuid} cannot be destroyed: {done.stderr}")


def records(pod: dict[str, Any]) -> tuple[MigAllocation, ...]:
    """The instances that a pod was given."""
    noted = pod["metadata"].get("annotations", {})
    return decode_mig_allocations(noted.get(names.POD_MIG_ALLOCATIONS, ""))


def disagreement(kube: Kube) -> str | None:
    """Where scheduler and node count the free places of a card differently."""

    def free(app: str, port: int, series: str) -> dict[tuple[str, str], float]:
        found = (s for s in samples(kube, app, port) if s.name == series)
        return {(s.labels["device_uuid"], s.labels["profile"]): s.value for s in found}

    scheduler = free("hami-scheduler", 9395, "hami_extender_mig_free_placements")
    node = free("hami-mig-manager", 9398, "hami_mig_manager_free_placements")
    if len(scheduler) != len(cards()) * len(MEMORY):
        return f"the scheduler's free places of every card and profile: {scheduler}"
    differing = {key: (n, node.get(key)) for key, n in scheduler.items() if node.get(key) != n}
    return f"free places, scheduler's and node's: {differing}" if differing else None
