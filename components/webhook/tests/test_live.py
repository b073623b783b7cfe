"""Behaviour of hami_webhook.live: the configuration in force while its file changes."""

import os

import pytest

from hami_webhook.live import LiveRules, read_rules
from hami_webhook.rules import Rules
from hamikit.deviceconfig import ConfigError

BASE = Rules(scheduler_name="mine", take_default=False)


@pytest.fixture
def write(tmp_path):
    """Write the file as kubelet does: a new one takes the old one's place."""
    path = tmp_path / "device-config.yaml"

    def replace(text):
        fresh = tmp_path / "fresh"
        fresh.write_text(text)
        os.replace(fresh, path)
        return str(path)

    return replace


def test_a_change_is_in_force_without_a_restart(write):
    """And what the file does not say stays as the flags have it."""
    told = []
    live = LiveRules(write("nvidia: {defaultGPUNum: 2}"), BASE, told.append)
    assert (live.rules.families[0].default_count, live.rules.scheduler_name) == (2, "mine")
    live.refresh()
    assert told == []
    write("nvidia: {defaultGPUNum: 3}")
    live.refresh()
    assert (live.rules.families[0].default_count, live.rules.take_default) == (3, False)
    assert (live.fault, told) == (None, [""])


def test_the_last_good_configuration_is_kept(write):
    """Each fault is reported once, and so is its end."""
    told = []
    path = write("nvidia: {defaultGPUNum: 2}")
    live = LiveRules(path, BASE, told.append)
    write("nvidia:\n  defaultGPUNum: many\n  defaultCores: 101\n")
    live.refresh()
    live.refresh()
    assert live.rules.families[0].default_count == 2
    assert f"{path}: line 2: nvidia.defaultGPUNum" in live.fault
    assert f"{path}: line 3: nvidia.defaultCores" in live.fault
    assert told == [live.fault]
    write("nvidia: {defaultGPUNum: 4}")
    live.refresh()
    assert (live.rules.families[0].default_count, live.fault, told[1:]) == (4, None, [""])


def test_a_file_that_goes_away_is_a_fault(write):
    """Somebody deleted the ConfigMap; the rules stay."""
    path = write("nvidia: {defaultGPUNum: 2}")
    live = LiveRules(path, BASE)
    os.unlink(path)
    live.refresh()
    assert "No such file" in live.fault
    assert live.rules.families[0].default_count == 2
    write("nvidia: {}")
    live.refresh()
    assert live.fault is None


def test_at_the_start_there_is_no_last_good_one(write):
    """So a file that cannot be used ends the process, with all of its faults."""
    with pytest.raises(ConfigError, match=r"(?s)line 1: .*defaultCores.*line 2: .*overwriteEnv"):
        LiveRules(write("nvidia: {defaultCores: x,\n  overwriteEnv: 3}"), BASE)
    with pytest.raises(ConfigError, match="twice"):
        read_rules(write("nvidia: {resourceMemoryName: nvidia.com/gpu}"), BASE)


def test_without_a_file_nothing_changes():
    """HAMi's defaults."""
    live = LiveRules(None, BASE)
    live.refresh()
    assert (live.rules, live.fault) == (BASE, None)


def test_other_families_are_those_of_the_file(write):
    """Chips under `vnpus:` only where the operator enabled them, as for the extender."""
    chip = "{commonWord: Ascend910B2, memoryAllocatable: 65536, memoryCapacity: 65536}"
    path = write(f"nvidia: {{}}\nhygon: {{resourceCountName: h.io/dcu}}\nvnpus: [{chip}]\n")
    assert [f.count for f in LiveRules(path, BASE).rules.families] == ["nvidia.com/gpu", "h.io/dcu"]
    live = LiveRules(path, BASE, ascend=True)
    assert [f.vendor for f in live.rules.families] == ["NVIDIA", "DCU", "Ascend910B2"]
    write("nvidia: {}\nvnpus: 3\n")
    live.refresh()
    assert "vnpus" in live.fault
