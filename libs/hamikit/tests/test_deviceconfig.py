"""Behaviour of hamikit.deviceconfig: the operator's file laid over HAMi's defaults."""

import pytest

from hamikit.deviceconfig import (
    ConfigError,
    load_families,
    load_family,
    load_section,
    nvidia_family,
)
from hamikit.devices import HYGON, NVIDIA


def test_without_a_file_the_defaults_hold():
    """HAMi's names."""
    assert load_family(None) == NVIDIA
    assert NVIDIA.resources == (
        "nvidia.com/gpu",
        "nvidia.com/gpumem",
        "nvidia.com/gpumem-percentage",
        "nvidia.com/gpucores",
        "nvidia.com/priority",
    )


def test_settings_replace_defaults(tmp_path):
    """Other sections and unknown keys are other components' business."""
    path = tmp_path / "device-config.yaml"
    path.write_text(
        "nvidia:\n  resourceCountName: example.com/gpu\n  defaultCores: 20\n  overwriteEnv: true\n"
        "  deviceSplitCount: 10\n  resourcePriorityName: ''\nhygon: {}\n"
    )
    family = load_family(str(path))
    assert (family.count, family.default_cores, family.overwrite_env) == (
        "example.com/gpu",
        20,
        True,
    )
    assert "" not in family.resources
    assert load_section(str(path))["deviceSplitCount"] == 10


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no section `nvidia:`"),
        ("nvidia: 3", "no section `nvidia:`"),
        ("nvidia: [", "give a readable device-config.yaml"),
    ],
)
def test_a_file_without_settings_is_an_error(text, says):
    """The text says which file and what to do."""
    with pytest.raises(ConfigError, match=says):
        load_section("device-config.yaml", read=lambda _: text)


def test_an_unreadable_file_is_an_error(tmp_path):
    """Absent, or not text."""
    with pytest.raises(ConfigError, match="No such file"):
        load_section(str(tmp_path / "absent"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="give a readable"):
        load_section(str(tmp_path / "binary"))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("defaultCores", True, "of type int"),
        ("defaultCores", "20", "of type int"),
        ("defaultCores", 101, "0 to 100"),
        ("defaultGPUNum", -1, "0 or more"),
        ("memoryFactor", -1, "0 or more"),
        ("overwriteEnv", "no", "of type bool"),
        ("resourceCountName", "", "must not be empty"),
        ("gpuCorePolicy", "always", "default, force, disable"),
    ],
)
def test_a_bad_value_names_its_key(key, value, says):
    """An operator must find it without reading our code."""
    with pytest.raises(ConfigError, match=rf"nvidia\.{key}.*{says}"):
        nvidia_family({key: value})


def test_two_resources_must_not_share_a_name():
    """Nobody could tell which one a pod means."""
    with pytest.raises(ConfigError, match=r"nvidia\.com/gpu.*twice"):
        nvidia_family({"resourceMemoryName": "nvidia.com/gpu"})


def families(tmp_path, text, **settings):
    """What a file makes of the rows."""
    path = tmp_path / "device-config.yaml"
    path.write_text(text)
    return load_families(str(path), **settings)


def test_a_family_for_each_section(tmp_path):
    """Hygon where its section has settings, Ascend's chips where the flag says so."""
    assert load_families(None) == (NVIDIA,)
    chips = "vnpus:\n  configs:\n  - {commonWord: Ascend910B3, memoryAllocatable: 65536}\n"
    text = "nvidia: {}\nhygon: {resourceCountName: acme.com/dcu, memoryFactor: 2}\n" + chips
    nvidia, hygon = families(tmp_path, text)
    assert (nvidia, hygon.count, hygon.memory, hygon.memory_factor) == (
        NVIDIA,
        "acme.com/dcu",
        HYGON.memory,
        2,
    )
    assert [row.vendor for row in families(tmp_path, text, ascend=True)] == [
        "NVIDIA",
        "DCU",
        "Ascend910B3",
    ]
    assert families(tmp_path, "nvidia: {}\nhygon: {}\n") == (NVIDIA,)


def test_families_do_not_share_names(tmp_path):
    """Nobody could tell which one a pod means."""
    with pytest.raises(ConfigError, match=r"nvidia\.com/gpu belongs to NVIDIA and to DCU"):
        families(tmp_path, "nvidia: {}\nhygon: {resourceCountName: nvidia.com/gpu}\n")
