"""The program as a whole, with scripts in place of kubectl, the node and the ledger."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.audit.__main__ import lasting
from e2e.audit.model import MIB, Card, Node, Pod, Snapshot
from hamikit.region import Control, ControlDevice, pack_control

ROOT = Path(__file__).resolve().parents[3]
UID = "0a1b2c3d-1111-2222-3333-444455556666"
ID = "ab" * 32


@pytest.fixture
def cluster(tmp_path):
    """A healthy cluster of files, and the command line that audits it."""
    cards = [{"id": "GPU-a", "count": 10, "devmem": 40960, "devcore": 100}]
    register = {"hami.io/node-nvidia-register": json.dumps(cards)}
    node = {"metadata": {"name": "n1", "annotations": register}}
    status = {"name": "main", "state": {"running": {}}, "containerID": f"containerd://{ID}"}
    grant = {
        "hami.io/vgpu-devices-allocated": "GPU-a,NVIDIA,3000,30:;",
        "hami.io/vgpu-node": "n1",
    }
    pod = {
        "metadata": {"uid": UID, "namespace": "ns", "name": "pod", "annotations": grant},
        "spec": {"nodeName": "n1", "containers": [{"name": "main"}]},
        "status": {"phase": "Running", "containerStatuses": [status]},
    }
    (tmp_path / "nodes").write_text(json.dumps({"items": [node]}))
    (tmp_path / "pods").write_text(json.dumps({"items": [pod]}))
    (tmp_path / "ledger").write_text(json.dumps({"cards": [{"uuid": "GPU-a", "processes": []}]}))
    folder = tmp_path / "n1" / f"{UID}_main"
    folder.mkdir(parents=True)
    image = pack_control(Control((ControlDevice("GPU-a", 3000 * MIB, 30),)))
    (folder / "control").write_bytes(image)
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        '#!/bin/sh\n[ "$2" = nodes ] || [ "$3" = --all-namespaces ] || exit 1\n'
        f'cat "{tmp_path}/$2"\n'
    )
    # Runs the auditor's own shell script, on this folder instead of the node's.
    on_node = tmp_path / "on-node"
    on_node.write_text(
        f'#!/bin/sh\necho "$4" | sed "s#/usr/local/vgpu/containers#{tmp_path}/$1#g" | sh\n'
    )
    for script in (kubectl, on_node):
        script.chmod(0o755)
    return (
        *("--kubectl", str(kubectl), "--exec", f"{on_node} {{node}}", "--pause", "0"),
        *("--node", f"n1={tmp_path}", "--ledger", "cat {folder}/ledger"),
    )


def program(*arguments):
    """Run the auditor as a user would."""
    command = [sys.executable, "-m", "e2e.audit", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_clean_cluster(cluster):
    """Exit code 0, and a table with all three accounts."""
    done = program(*cluster)
    assert (done.returncode, done.stderr) == (0, "")
    header, row, last = done.stdout.splitlines()
    assert row.split() == ["n1", "GPU-a", "1/10", "3000/40960", "3000", "0", "30/100"]
    assert last == "1 pods with a grant, 0 violations"
    assert header.startswith("node")


def test_a_violation_on_the_node(cluster, tmp_path):
    """Exit code 1; for machines, one JSON object."""
    image = pack_control(Control((ControlDevice("GPU-a", 4000 * MIB, 30),)))
    (tmp_path / "n1" / f"{UID}_main" / "control").write_bytes(image)
    done = program(*cluster, "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert [(v["kind"], v["subject"]) for v in said["violations"]] == [
        ("control-differs", "ns/pod/main")
    ]
    assert said["cards"][0]["memory_enforced_mib"] == 4000


def test_a_node_without_any_container(cluster, tmp_path):
    """No folder on the node is no failure, but the running container is found out."""
    for path in ((tmp_path / "n1" / f"{UID}_main"), tmp_path / "n1"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    done = program(*cluster)
    assert done.returncode == 1
    assert "no-control-file: n1: ns/pod/main" in done.stdout


def test_a_source_that_fails(cluster):
    """Exit code 2 and which program said what: no verdict without the facts."""
    done = program(*cluster, "--ledger", "sh -c 'echo broken >&2; exit 3'")
    assert (done.returncode, done.stdout) == (2, "")
    assert "exit 3: broken" in done.stderr


def test_what_passes_is_no_violation():
    """A pod that was just ending looks wrong once; only what lasts is told."""
    over = (Pod("u", "ns/p", "n1", "n2", ()),)
    node = (Node("n1", (Card("GPU-a", 1, 1, 1),)),)
    looks = iter([Snapshot(node, over), Snapshot(node, over), Snapshot(node)])
    assert lasting(lambda: next(looks), lambda: None, 3)[1] == []
    passing = (Snapshot(node, (Pod("u", f"ns/p{i}", "n1", "n2", ()),)) for i in range(3))
    assert lasting(lambda: next(passing), lambda: None, 3)[1] == []
    always = Snapshot(node, over)
    assert [v.kind for v in lasting(lambda: always, lambda: None, 3)[1]] == ["wrong-node"]


def test_imports_nothing_but_the_standard_library():
    """Whoever audits must not share the audited one's errors."""
    allowed = sys.stdlib_module_names | {"e2e"}
    for path in (ROOT / "e2e" / "audit").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                assert module.split(".")[0] in allowed, f"{path.name} imports {module}"
                assert not module.startswith("e2e") or module.startswith("e2e.audit")
