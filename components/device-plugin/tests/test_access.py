"""By which protocol and by which way containers come to their cards."""

import threading
from pathlib import Path

import pytest
import structlog

from hami_device_plugin.access import Access, CardAccess, decide
from hami_device_plugin.cdi import node_spec
from hami_device_plugin.runtime import Runtime, names_nvidia
from hami_device_plugin.settings import Wish


def spec(**edits):
    """A node's specification of one card."""
    device = {"name": "0", "containerEdits": edits}
    document = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [device]}
    return node_spec("/etc/cdi/nvidia.yaml", document)


HOOK = {"hookName": "createContainer", "path": "/hook"}
PLAIN, HOOKED = spec(deviceNodes=[{"path": "/dev/nvidia0"}]), spec(hooks=[HOOK])
OFF = "CDI is switched off"


@pytest.mark.parametrize(
    ("wish", "off", "specs", "nvidia", "can"),
    [
        (Wish.LATE, None, [HOOKED], False, ("late", "cdi")),
        (Wish.LATE, None, [HOOKED], True, ("late", "cdi")),
        (Wish.LATE, None, [], True, ("late", "runtime")),
        (Wish.LATE, None, [], None, ("late", "runtime")),
        (Wish.LATE, None, [], False, ("", "")),
        (Wish.LATE, OFF, [PLAIN], True, ("", "")),
        (Wish.AUTO, None, [PLAIN], True, ("late", "cdi")),
        (Wish.AUTO, OFF, [HOOKED], True, ("lock", "runtime")),
        (Wish.AUTO, OFF, [], None, ("lock", "runtime")),
        (Wish.AUTO, OFF, [PLAIN], False, ("lock", "list")),
        (Wish.AUTO, OFF, [PLAIN, HOOKED], False, ("", "")),
        (Wish.AUTO, OFF, [], False, ("", "")),
        (Wish.LOCK, None, [HOOKED], True, ("lock", "runtime")),
        (Wish.LOCK, None, [HOOKED], False, ("lock", "cdi")),
        (Wish.LOCK, None, [], False, ("", "")),
    ],
)
def test_what_a_node_can_do(wish, off, specs, nvidia, can):
    """Late binding needs CDI; the lock needs somebody who brings the cards."""
    found = decide(wish, off, specs, nvidia_runtime=nvidia)
    assert (found.binding, found.way) == can
    assert (found.reason is None) == (found.binding == "late")
    if off and found.binding != "late":
        assert off in found.reason


@pytest.mark.parametrize(
    ("off", "specs", "way"),
    [(None, [HOOKED], "cdi"), (None, [], "runtime"), (OFF, [HOOKED], "runtime")],
)
def test_the_operator_may_prefer_cdi_with_the_lock(off, specs, way):
    """Where there is some; else the NVIDIA runtime brings the cards."""
    found = decide(Wish.LOCK, off, specs, nvidia_runtime=True, prefers_cdi=True)
    assert (found.binding, found.way) == ("lock", way)


def test_files_that_cannot_be_used_are_part_of_the_reason():
    """Else nobody would look for the specification that is there."""
    said = decide(Wish.LATE, None, [], nvidia_runtime=False, faults=["/etc/cdi/x is broken"]).reason
    assert said.endswith("on the node; /etc/cdi/x is broken")


def test_hooks_that_nobody_runs_are_named():
    """And what to do about it."""
    said = decide(Wish.AUTO, OFF, [HOOKED], nvidia_runtime=False).reason
    assert "hooks of /etc/cdi/nvidia.yaml" in said
    assert "switch CDI on" in said


@pytest.mark.parametrize(
    ("runtimes", "found"),
    [
        ({"nvidia": {}}, True),
        ({"gpu": {"options": {"BinaryName": "/usr/bin/nvidia-container-runtime"}}}, True),
        ({"runc": {"options": {"BinaryName": "/opt/nvidia/bin/runc"}}}, False),
        ({}, False),
        ("x", False),
    ],
)
def test_an_nvidia_runtime_goes_by_its_name_or_its_program(runtimes, found):
    """Not by the folder that a program lies in."""
    assert names_nvidia({"containerd": {"runtimes": runtimes}}) is found


def test_a_change_is_told_once_and_stands_in_the_log(tmp_path):
    """One line with all there is to know."""
    changes, specs, config = [], [HOOKED], tmp_path / "config.toml"
    config.write_text("")
    access = CardAccess(
        lambda: Wish.AUTO,
        Runtime(config, Path("/var/run/cdi")),
        lambda: specs,
        lambda: changes.append(1),
    )
    assert not access.known
    with structlog.testing.capture_logs() as lines:
        access.runs("containerd://2.2.1")
        access.look()
        assert access.now == Access("late", "cdi")
        config.write_text("[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = false\n")
        access.look()
    assert access.known
    assert [(line["binding"], line["way"]) for line in lines] == [("late", "cdi"), ("none", "none")]
    assert lines[0]["specs"] == ["/etc/cdi/nvidia.yaml"]
    assert len(changes) == 2


def test_a_first_look_that_takes_long_is_waited_for(tmp_path):
    """Two threads tell the runtime; neither goes on with the guess that we start with."""
    looking, go, found = threading.Event(), threading.Event(), []

    def specs():
        looking.set()
        assert go.wait(10)
        return [PLAIN]

    config = tmp_path / "config.toml"
    config.write_text("[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = false\n")
    access = CardAccess(lambda: Wish.AUTO, Runtime(config, Path("/var/run/cdi")), specs)

    def tell():
        access.runs("containerd://2.2.1")
        found.append(access.now.binding)

    threads = [threading.Thread(target=tell) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert looking.wait(10)
    assert not access.known
    threads[1].join(0.1)
    assert found == []
    go.set()
    for thread in threads:
        thread.join(10)
    assert found == ["lock", "lock"]
    assert access.known
