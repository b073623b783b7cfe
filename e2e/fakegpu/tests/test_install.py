"""The driver root, the node's CDI spec, and what a container may see."""

import json
import os
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

NO_DEVICE = 100
DRIVER_NOT_LOADED = 9
LIBS = "usr/lib/x86_64-linux-gnu"


def install(node, root, *more):
    """Installs an A100 node's driver."""
    cards = os.path.join(os.path.dirname(__file__), "..", "cards", "a100.txt")
    return subprocess.run(
        [node.build / "fakegpu", "install", "--root", root, "--cards", cards, *more],
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_root_looks_like_a_containerised_drivers(node, tmp_path):
    """Libraries with their sonames and links, nvidia-smi, and a state that anyone may write."""
    root = tmp_path / "driver"
    assert install(node, root).returncode == 0
    for name in ("libcuda.so", "libnvidia-ml.so"):
        assert (root / LIBS / f"{name}.1").is_file()
        assert os.readlink(root / LIBS / name) == f"{name}.1"
    assert os.access(root / "usr/bin/nvidia-smi", os.X_OK)
    assert (root / "run/nvidia-fake/state").stat().st_mode & 0o777 == 0o666
    assert (root / "run/nvidia-fake").stat().st_mode & 0o777 == 0o777


def test_the_cdi_spec_has_the_shape_of_nvidia_ctk(node, tmp_path):
    """Devices by index, UUID and `all`; libraries read-only, the state's folder read-write."""
    cdi = tmp_path / "etc/cdi/nvidia.yaml"
    assert install(node, tmp_path / "driver", "--cdi", cdi).returncode == 0
    spec = YAML(typ="safe").load(cdi.read_text())
    assert (spec["cdiVersion"], spec["kind"]) == ("0.5.0", "nvidia.com/gpu")
    nodes = {
        d["name"]: [n["path"] for n in d["containerEdits"]["deviceNodes"]] for d in spec["devices"]
    }
    uuids = [name for name in nodes if name.startswith("GPU-")]
    assert len(uuids) == 4
    assert nodes["2"] == nodes[uuids[2]] == ["/dev/nvidia2"]
    assert nodes["all"] == [f"/dev/nvidia{i}" for i in range(4)]
    common = spec["containerEdits"]
    assert common["env"] == ["NVIDIA_VISIBLE_DEVICES=void"]
    assert [n["path"] for n in common["deviceNodes"]] == ["/dev/nvidia-uvm", "/dev/nvidiactl"]
    mounts = {m["containerPath"]: (m["hostPath"], m["options"][0]) for m in common["mounts"]}
    assert mounts[f"/{LIBS}/libcuda.so.1"] == (f"/run/nvidia/driver/{LIBS}/libcuda.so.1", "ro")
    assert mounts["/usr/bin/nvidia-smi"] == ("/run/nvidia/driver/usr/bin/nvidia-smi", "ro")
    assert mounts["/run/nvidia-fake"] == ("/run/nvidia/driver/run/nvidia-fake", "rw")


def test_installing_again_keeps_the_state_and_other_cards_are_refused(node, tmp_path):
    """The second install changes no inode of the state; another seed needs --force."""
    root = tmp_path / "driver"
    state = root / "run/nvidia-fake/state"
    assert install(node, root, "--seed", "a").returncode == 0
    before = state.stat().st_ino
    assert install(node, root, "--seed", "a").returncode == 0
    assert state.stat().st_ino == before
    refused = install(node, root, "--seed", "b")
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    assert install(node, root, "--seed", "b", "--force").returncode == 0
    assert state.stat().st_ino != before


def test_a_state_of_another_version_is_replaced_and_a_strangers_file_is_not(node, tmp_path):
    """An upgrade of the fake needs no --force; a file that is no state is left alone."""
    root = tmp_path / "driver"
    state = root / "run/nvidia-fake/state"
    assert install(node, root).returncode == 0
    with state.open("r+b") as file:
        file.seek(4)
        file.write(b"\xff")
    assert install(node, root).returncode == 0
    assert json.loads(node.cli("ledger", "--state", str(state)))["cards"][0]["used"] == 0
    state.write_text("somebody's notes")
    refused = install(node, root)
    assert refused.returncode == 1
    assert "is no state file" in refused.stderr
    assert state.read_text() == "somebody's notes"


def test_a_daemon_with_the_driver_root_sees_every_card(node, tmp_path):
    """A library under a prefix uses that prefix's state, and no device nodes."""
    root = tmp_path / "driver"
    assert install(node, root).returncode == 0
    code = (
        "import ctypes, sys\n"
        "ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)\n"
        "import pynvml as n\n"
        "n.nvmlInit()\n"
        "print(n.nvmlDeviceGetCount(), open('/proc/self/maps').read().count('nvidia-fake/state'))"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("FAKEGPU_")}
    done = subprocess.run(
        [sys.executable, "-c", code, root / LIBS / "libnvidia-ml.so.1"],
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["4", "1"]


def test_the_installed_nvidia_smi_finds_the_library_beside_it(node, tmp_path):
    """On a node nvidia-smi works without any environment."""
    root = tmp_path / "driver"
    assert install(node, root).returncode == 0
    done = subprocess.run(
        [root / "usr/bin/nvidia-smi", "-L"], env={}, check=True, capture_output=True
    )
    assert done.stdout.count(b"NVIDIA A100-SXM4-40GB") == 4


def device_folder(tmp_path, *names):
    """A stand-in for a container's /dev."""
    folder = tmp_path / "dev"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return str(folder)


def test_only_cards_with_a_device_node_are_visible(make_node, tmp_path):
    """A container that got /dev/nvidia1 and nvidia3 sees these two, in this order."""
    dev = device_folder(tmp_path, "nvidiactl", "nvidia1", "nvidia3")
    node = make_node("a100.txt", dev=dev)
    uuids = [card["uuid"] for card in node.ledger()]
    seen = "[n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByIndex(i)) for i in (0, 1)]"
    assert node.nvml(seen) == [uuids[1], uuids[3]]
    assert node.nvml("n.nvmlDeviceGetCount()") == 2
    assert node.nvml("n.nvmlDeviceGetMinorNumber(n.nvmlDeviceGetHandleByIndex(1))") == 3
    assert [card["uuid"] for card in node.probe("info")["cards"]] == [uuids[1], uuids[3]]


def test_without_the_control_node_there_is_no_driver(make_node, tmp_path):
    """No nvidiactl: CUDA finds no device, NVML no driver."""
    node = make_node("a100.txt", dev=device_folder(tmp_path, "nvidia0"))
    assert node.probe("info")["code"] == NO_DEVICE
    assert node.nvml_error("0") == DRIVER_NOT_LOADED


def test_with_the_control_node_alone_there_are_no_cards(make_node, tmp_path):
    """A nvidiactl without cards: CUDA finds no device, NVML counts none."""
    node = make_node("a100.txt", dev=device_folder(tmp_path, "nvidiactl"))
    assert node.probe("info")["code"] == NO_DEVICE
    assert node.nvml("n.nvmlDeviceGetCount()") == 0


def test_without_a_state_file_there_is_no_driver(make_node):
    """A missing state file is a driver that is not loaded."""
    node = make_node()
    node.state.unlink()
    assert node.probe("info")["code"] == NO_DEVICE
    assert node.nvml_error("0") == DRIVER_NOT_LOADED


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", [1]),
        ("1,0", [1, 0]),
        ("0,7,1", [0]),
        ("UUID1", [1]),
        ("", None),
        ("-1", None),
        ("0,0", None),
    ],
)
def test_cuda_visible_devices_is_honoured(make_node, value, expected):
    """Indexes, orders, UUIDs; what follows a bad entry is hidden; nothing visible is no device."""
    node = make_node()
    uuids = [card["uuid"] for card in node.ledger()]
    env = {**node.env, "CUDA_VISIBLE_DEVICES": value.replace("UUID1", uuids[1])}
    done = subprocess.run(
        [node.build / "cuprobe", "info"], env=env, check=False, capture_output=True
    )
    answer = json.loads(done.stdout)
    if expected is None:
        assert answer["code"] == NO_DEVICE
    else:
        assert [card["uuid"] for card in answer["cards"]] == [uuids[i] for i in expected]
