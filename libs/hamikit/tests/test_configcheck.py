"""Behaviour of hamikit.configcheck: every fault of a device-config.yaml with its line."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from hamikit.configcheck import NVIDIA, check
from hamikit.deviceconfig import _NVIDIA_KEYS

SHIPPED = Path(__file__).parents[3] / "deploy/base/config/device-config.yaml"


def faults(text):
    """What is wrong, as lines of text."""
    return [str(finding) for finding in check(text).faults]


def test_the_shipped_file_is_fine():
    """Without a word."""
    text = YAML(typ="safe").load(SHIPPED.read_text())["data"]["device-config.yaml"]
    assert (check(text).faults, check(text).warnings) == ((), ())


def test_every_fault_is_told_with_its_line():
    """One look is enough to put the file right."""
    text = """nvidia:
  resourceCountName: ""
  # a comment
  defaultCores: 101
  overwriteEnv: "no"
  deviceSplitCount: true

hygon: {}
"""
    assert faults(text) == [
        "line 2: nvidia.resourceCountName: '' must not be empty; the count is what a pod asks with",
        "line 4: nvidia.defaultCores: 101 must be a whole number, from 0 to 100",
        "line 5: nvidia.overwriteEnv: 'no' must be true or false",
        "line 6: nvidia.deviceSplitCount: True must be a whole number, from 1 to 1000",
    ]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("resourceMemoryName: gpumem", "extended resource"),
        ("resourceMemoryName: kubernetes.io/gpumem", "extended resource"),
        ("resourceMemoryName: node.kubernetes.io/gpumem", "extended resource"),
        ("resourceMemoryName: 3", "extended resource"),
        ("defaultMemory: -1", "0 or more"),
        ("defaultGPUNum: 1.5", "0 or more"),
        ("deviceMemoryScaling: 0", "above 0"),
        ("deviceCoreScaling: true", "above 0"),
        ("libCudaLogLevel: 7", "0, 1, 2, 3 or 4"),
        ("gpuCorePolicy: always", "default, force, disable"),
        ("runtimeClassName: [x]", "must be a text"),
        ("migProfileAllowlist: {}", "list of groups"),
        ("migProfileAllowlist: [{models: [A30]}]", "list of groups"),
        ("migProfileAllowlist: [{models: [A30], profiles: [g1]}]", "like 1g.5gb"),
        ("binding: early", "late, lock, auto"),
    ],
)
def test_a_value_that_cannot_be_meant(setting, says):
    """The text says what may be written."""
    [fault] = faults(f"nvidia:\n  {setting}\n")
    assert fault.startswith(f"line 2: nvidia.{setting.split(':')[0]}: ")
    assert says in fault


@pytest.mark.parametrize(
    "setting",
    [
        "resourceMemoryName: ''",
        "resourceMemoryName: example.com/gpu_mem.v2",
        "deviceMemoryScaling: 1.5",
        "libCudaLogLevel: '3'",
        "defaultMemory:",
        "gpuCorePolicy: ''",
        "migProfileAllowlist: [{models: [A30], profiles: [1g.6gb]}]",
        "knownMigGeometries: [anything]",
    ],
)
def test_what_hami_takes_is_taken(setting):
    """Empty names switch a resource off, a key without a value is its default."""
    assert faults(f"nvidia:\n  {setting}\n") == []


def test_two_resources_of_one_name():
    """The later line is the one at fault."""
    text = "nvidia:\n  resourceCountName: x.io/a\n  resourceCoreName: x.io/a\n"
    [fault] = faults(text)
    assert fault.startswith("line 3: nvidia.resourceCoreName: x.io/a is nvidia.resourceCountName ")


def test_what_has_no_effect_is_only_a_warning():
    """HAMi reads over it; a slip of the pen is shown with what was probably meant."""
    checked = check("nvidia:\n  defaultMemroy: 5\nhygon: {}\nnvidai: {}\n")
    assert checked.faults == ()
    said = "no such setting is known, it has no effect; is"
    assert [str(finding) for finding in checked.warnings] == [
        f"line 2: nvidia.defaultMemroy: {said} defaultMemory meant?",
        f"line 4: nvidai: {said} nvidia meant?",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nvidia: [", "line 1: not YAML"),
        ("nvidia:\n  a: 1\n  a: 2\n", "line 3: not YAML: found duplicate key"),
        ("nvidia:\n\tdefaultCores: 1", "line 2: not YAML"),
        ("", "has no section `nvidia:`"),
        ("nvidia: 3", "has no section `nvidia:`"),
        ("\x00", "not YAML"),
    ],
)
def test_what_is_no_configuration(text, says):
    """The place is told where there is one."""
    [fault] = faults(text)
    assert fault.startswith(says)


def test_every_key_that_is_read_is_checked():
    """A key that code reads and the check does not know would be called unknown."""
    assert [key for key in _NVIDIA_KEYS if key not in NVIDIA] == []
