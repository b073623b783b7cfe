"""Our files on a node, and the node's own CDI specifications."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hami_device_plugin.cdifiles import CdiFiles, naming
from hami_device_plugin.config import Config
from hami_device_plugin.grant import PodGrant
from hami_device_plugin.hostfiles import HostFiles, NotDelivered
from hami_device_plugin.stock import CheckpointFile, Stock
from hamikit.codec import RegisteredDevice
from hamikit.names import CONTROL_GROUP
from hamikit.region import USAGE_SIZE, Control, ControlDevice, read_control, write_control

ONE = Control((ControlDevice("GPU-a", 1 << 20, 30),))


def mode(path):
    """A file's permission bits."""
    return oct(path.stat().st_mode & 0o7777)


def test_only_the_usage_file_is_writable_by_a_tenant(node):
    """Also the kept grants are for root alone."""
    files = HostFiles(node.vgpu)
    files.prepare()
    files.put_limits("u", "c", ONE)
    folder = node.vgpu / "containers/u_c"
    assert {path.name: mode(path) for path in folder.iterdir()} == {
        "control": "0o664",
        "usage": "0o666",
        "libvgpu.so": "0o444",
    }
    # Mounted read-only for the tenant; the monitor writes who has to wait.
    assert (folder / "control").stat().st_gid == CONTROL_GROUP
    assert (folder / "usage").stat().st_size == USAGE_SIZE
    assert (mode(folder), mode(node.vgpu / "grants")) == ("0o755", "0o700")


def test_a_usage_file_that_its_container_grew_is_cut_back(node):
    """It lies on the node's disk and counts against nobody's ephemeral storage."""
    files = HostFiles(node.vgpu)
    files.put_limits("u", "c", ONE)
    path = node.vgpu / "containers/u_c/usage"
    before = path.read_bytes()
    with path.open("ab") as usage:
        usage.write(b"x" * 4096)
    files.trim_usage()
    assert path.read_bytes() == before


def test_limits_in_force_are_left_alone(node):
    """A restarted container has what the monitor set meanwhile, and the same inode."""
    files = HostFiles(node.vgpu)
    files.put_limits("u", "c", ONE)
    path = node.vgpu / "containers/u_c/control"
    inode = path.stat().st_ino
    write_control(path, Control(ONE.devices, suspended=True))
    files.put_limits("u", "c", ONE)
    assert read_control(path).suspended
    assert path.stat().st_ino == inode


def test_new_limits_leave_what_the_monitor_told(node):
    """It owns these fields; else a container would run that has to wait, until it looks again."""
    files = HostFiles(node.vgpu)
    files.put_limits("u", "c", ONE)
    path = node.vgpu / "containers/u_c/control"
    told = {"suspended": True, "blocked": True, "contended": True, "blocked_until_ns": 7}
    write_control(path, Control(ONE.devices, **told))
    wanted = Control((ControlDevice("GPU-a", 2 << 20, 50),), priority=0)
    files.put_limits("u", "c", wanted)
    assert read_control(path) == replace(wanted, **told)


def test_a_damaged_control_file_is_replaced(node):
    """A crash while it was made must not keep the container from starting."""
    files = HostFiles(node.vgpu)
    files.put_limits("u", "c", ONE)
    path = node.vgpu / "containers/u_c/control"
    path.write_bytes(b"half")
    files.put_limits("u", "c", ONE)
    assert read_control(path).devices == ONE.devices


@pytest.mark.parametrize("damaged", [b"{", b'{"uid": "\xff"}', b""], ids=["cut", "bytes", "empty"])
def test_a_kept_grant_that_is_damaged_is_skipped(node, damaged):
    """One bad file does not hide the others."""
    files = HostFiles(node.vgpu)
    files.prepare()
    (node.vgpu / "grants/u.json").write_bytes(damaged)
    assert files.load_grants() == []


def test_a_delivery_without_its_files_does_not_count(node):
    """`current` may point to a version that is not whole."""
    files = HostFiles(node.vgpu)
    assert files.library() == "0.1.0"
    os.unlink(node.vgpu / "0.1.0/libvgpu.so")
    with pytest.raises(NotDelivered, match="DaemonSet hami-core"):
        files.library("0.1.0")


def test_a_spec_is_written_whole_and_only_when_it_changes(node):
    """What the runtime sees is a rename to .json in the same folder."""
    cdi = CdiFiles((node.static, node.cdi), node.cdi)
    document = {"devices": [{"name": "c1", "containerEdits": {}}]}
    assert cdi.write("c1", document)
    inode = next(node.cdi.iterdir()).stat().st_ino
    assert not cdi.write("c1", document)
    (path,) = node.cdi.iterdir()
    assert (path.name, path.stat().st_ino, mode(path)) == (
        "hami.io-vgpu_c1.json",
        inode,
        "0o644",
    )
    assert list(cdi.ours()) == ["c1"]
    cdi.remove("c1")
    cdi.remove("c1")
    assert cdi.ours() == {}


def test_node_specs_are_read_again_when_they_change(node):
    """YAML and JSON, from every folder; ours, other files and broken ones are passed over."""
    cdi = CdiFiles((node.static, node.cdi), node.cdi)
    cdi.write("c1", {"kind": "nvidia.com/gpu", "cdiVersion": "0.5.0"})
    (node.cdi / "x.json").write_text('{"kind":"nvidia.com/gpu","cdiVersion":"0.7.0"}')
    (node.cdi / "broken.yaml").write_text("a: [")
    (node.cdi / "notes.txt").write_text("kind: nvidia.com/gpu")
    first, second = cdi.node_specs()
    assert (list(first.devices), second.version) == (["0", "GPU-b", "all"], "0.7.0")
    assert cdi.node_specs()[0] is first
    (node.static / "nvidia.yaml").write_text("kind: nvidia.com/gpu\ncdiVersion: 0.5.0\n")
    assert cdi.node_specs()[0].version == "0.5.0"


def test_slots_before_the_first_scan_are_those_kubelet_knew(node):
    """A scan may take seconds, and without slots kubelet fails every pod it admits."""
    path = node.plugins / "kubelet_internal_checkpoint"
    path.write_text('{"Data":{"RegisteredDevices":{"nvidia.com/gpu":["slot-0000","slot-0001"]}}}')
    stock = Stock("nvidia.com/gpu", CheckpointFile(path).read)
    assert stock.slots() == {"slot-0000": True, "slot-0001": True}
    assert stock.cards() is None
    assert stock.update((RegisteredDevice(id="a", count=1, health=True),))
    assert stock.slots() == {"slot-0000": True}


def test_an_unreadable_checkpoint_keeps_what_was_held(node):
    """Held ids must not turn unhealthy because of a bad read."""
    path = node.plugins / "kubelet_internal_checkpoint"
    entry = (
        '{"PodUID":"u","ContainerName":"c","ResourceName":"nvidia.com/gpu",'
        '"DeviceIDs":{"-1":["slot-0005"]}}'
    )
    path.write_text('{"Data":{"PodDeviceEntries":[' + entry + "]}}")
    stock = Stock("nvidia.com/gpu", CheckpointFile(path).read)
    assert stock.held() == {"slot-0005"}
    path.write_text("{")
    assert stock.held() == {"slot-0005"}


def test_variables_are_the_flags_defaults():
    """A flag wins over its variable."""
    environ = {"NODE_NAME": "n1", "HOOK_PATH": "/opt", "STATUS_ADDRESS": "127.0.0.1:1"}
    config = Config.parse(["--status-address=[::]:2"], environ)
    assert (config.node_name, str(config.vgpu_dir)) == ("n1", "/opt/vgpu")
    assert (config.status_host, config.status_port) == ("::", 2)
    assert str(config.checkpoint) == "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "NODE_NAME"),
        (["--node-name=n", "--status-address=x"], "write [HOST]:PORT"),
        (["--node-name=n", "--device-list-strategy=volume-mounts"], "'volume-mounts' is none of"),
    ],
)
def test_a_wrong_flag_ends_with_code_2(argv, words, capsys):
    """And says what to give."""
    with pytest.raises(SystemExit) as ended:
        Config.parse(argv, {})
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_full_disk_is_told_with_the_path(tmp_path):
    """The kernel tells it at `write`, which knows no name."""
    with pytest.raises(OSError, match=r"No space left on device: '/x/y'"), naming(Path("/x/y")):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="/other"), naming(Path("/x/y")):
        raise OSError(28, "No space left on device", "/other")


def test_a_full_disk_names_the_specification_or_the_grant(node):
    """Whichever does not fit."""
    files = HostFiles(node.vgpu)
    files.prepare()
    specification = node.cdi / "hami.io-vgpu_c0123456789.tmp"
    grant = node.vgpu / "grants/u1.tmp"
    for path in (specification, grant):
        path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=str(specification)):
        CdiFiles([node.static], node.cdi).write("c0123456789", {"cdiVersion": "0.5.0"})
    with pytest.raises(OSError, match=str(grant)):
        files.save_grant(PodGrant("u1", "default", "p", "", ()))
