"""Simulated cards on the lab's nodes, put there the way a real driver is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from e2e.kube import Kube
from e2e.lab import config as lab_config

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "e2e" / "fakegpu"
STATE_IN_ROOT = "run/nvidia-fake/state"
NODE_ROOT = "/run/nvidia/driver"
# Node -> cards file: different models stand side by side.
CARDS = {"hami-control-plane": "t4.txt", "hami-worker": "a100.txt"}


def build_folder() -> Path:
    """Where the fake driver is built: beside the lab's state, never in the checkout."""
    return lab_config.load().state / "fakegpu"


def build() -> Path:
    """Build the fake driver and the probe; quick when nothing changed."""
    folder = build_folder()
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    # Another checkout may have built there before: its sources would go on being what is built.
    made = folder / "meson-info" / "meson-info.json"
    if made.exists():
        source = json.loads(made.read_text(encoding="utf-8"))["directories"]["source"]
        if Path(source) != SOURCE:
            shutil.rmtree(folder)
    if not (folder / "build.ninja").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run("meson", "setup", str(folder), str(SOURCE), environment=environment)
    _run("ninja", "-C", str(folder), environment=environment)
    return folder


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise SystemExit(f"{' '.join(command)} failed:\n{tail}")
    return done.stdout


def install(kube: Kube) -> None:
    """Lay out every node's driver and CDI specification, make its device nodes, label it."""
    built, lab = build(), lab_config.load()
    for node in kube.nodes:
        place = lab.state / "nodes" / node
        _run(
            *(str(built / "fakegpu"), "install", "--root", str(place / "driver")),
            *("--cdi", str(place / "cdi" / "nvidia.yaml"), "--seed", node),
            *("--cards", str(SOURCE / "cards" / CARDS[node]), "--node-root", NODE_ROOT),
            *("--libs", str(built)),
        )
        count = len(ledger(node)["cards"])
        kube.node(node, "sh", "-ec", device_nodes(count))
        kube.kubectl("label", "node", node, "gpu=on", "--overwrite")


def device_nodes(count: int) -> str:
    """Shell commands that make the device nodes a real driver's kernel module would make."""
    nodes = [("nvidiactl", 195, 255), ("nvidia-uvm", 510, 0)]
    nodes += [(f"nvidia{i}", 195, i) for i in range(count)]
    return "; ".join(
        f"[ -e /dev/{name} ] || mknod -m 666 /dev/{name} c {major} {minor}"
        for name, major, minor in nodes
    )


def ledger(node: str) -> dict[str, list[dict[str, object]]]:
    """What the fake cards of a node know about their memory and processes."""
    found: dict[str, list[dict[str, object]]] = json.loads(simulate(node, "ledger"))
    return found


def simulate(node: str, verb: str, *what: str) -> str:
    """Have something happen to the fake cards of a node; what their tool prints."""
    state = lab_config.load().state / "nodes" / node / "driver" / STATE_IN_ROOT
    return _run(str(build_folder() / "fakegpu"), verb, "--state", str(state), *what)


def audit(kube: Kube) -> list[dict[str, str]]:
    """What `e2e/audit` finds, each with kind, node, subject and text; empty when clean.

    A program of its own, so that it cannot share a mistake with what it checks.
    """
    lab, tool = lab_config.load(), build_folder() / "fakegpu"
    command = [sys.executable, "-m", "e2e.audit", "--json", "--kubectl", kube.binary]
    command += ["--exec", "docker exec {node}"]
    command += ["--ledger", f"{tool} ledger --state {{folder}}/driver/{STATE_IN_ROOT}"]
    for node in kube.nodes:
        command += ["--node", f"{node}={lab.state / 'nodes' / node}"]
    environment = {**os.environ, **kube.environment}
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode not in (0, 1):
        raise AssertionError(f"the audit itself failed: {done.stderr}")
    violations: list[dict[str, str]] = json.loads(done.stdout)["violations"]
    return violations
