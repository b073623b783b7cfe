"""The operator's settings for this node."""

import json

import pytest

from hami_device_plugin.grant import ContainerGrant, Slice
from hami_device_plugin.preparer import control
from hami_device_plugin.settings import Settings, cluster_settings, node_settings
from hamikit.deviceconfig import ConfigError
from hamikit.region import Control, ControlDevice, ControlFlag, CorePolicy
from hamikit.shape import Role


def test_cluster_settings_have_hamis_keys():
    """Keys of device-config.yaml; whole numbers are fine where a fraction is expected."""
    section = {
        "resourceCountName": "example.com/gpu",
        "deviceSplitCount": 4,
        "deviceMemoryScaling": 2,
        "deviceCoreScaling": 1.5,
        "disableCoreLimit": True,
        "envMayLoosenLimits": True,
        "libCudaLogLevel": "3",
    }
    settings = cluster_settings(section)
    assert settings.family.count == "example.com/gpu"
    assert (settings.split_count, settings.memory_scaling, settings.core_scaling) == (4, 2.0, 1.5)
    assert (settings.disable_core_limit, settings.env_may_loosen) == (True, True)
    assert settings.log_level == 3


def test_nothing_loosens_a_limit_by_default():
    """Not even HAMi's own variables."""
    settings = cluster_settings({"gpuCorePolicy": ""})
    assert not settings.env_may_loosen
    grant = ContainerGrant("c", Role.APP, (Slice("GPU-a", 3000, 30),), priority=0)
    assert control(grant, settings) == Control(
        (ControlDevice("GPU-a", 3000 * 1024 * 1024, 30),), ControlFlag.NONE, priority=0
    )


def test_the_operators_word_is_in_the_control_file():
    """Limits of cores off, variables on, a level of logs."""
    settings = Settings(disable_core_limit=True, env_may_loosen=True, log_level=4)
    wanted = control(ContainerGrant("c", Role.APP, ()), settings)
    assert wanted.core_policy is CorePolicy.DISABLE
    assert (wanted.flags, wanted.log_level) == (ControlFlag.ENV_MAY_LOOSEN, 4)


def node_file(**entry):
    """A config.json with one entry for n1."""
    return json.dumps({"nodeconfig": [{"name": "n1", **entry}, {"name": "n2", "x": 1}]})


def test_a_nodes_entry_overrides_in_any_case_of_letters():
    """A key that is present counts, also when its value is nothing."""
    cluster = Settings(split_count=10, disable_core_limit=True)
    text = node_file(deviceSplitCount=2, DisableCoreLimit=False, operatingmode="mps")
    settings = node_settings(cluster, text, "n1")
    assert (settings.split_count, settings.disable_core_limit, settings.mode) == (2, False, "mps")
    assert node_settings(cluster, text, "n3") == cluster


def test_a_node_can_hide_cards():
    """By UUID and by index."""
    text = node_file(filterdevices={"uuid": ["GPU-a"], "INDEX": [3]})
    settings = node_settings(Settings(), text, "n1")
    assert settings.hidden_uuids == {"GPU-a"}
    assert settings.hidden_indexes == {3}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"deviceSplitCount": 0}, "deviceSplitCount is 0"),
        ({"deviceSplitCount": True}, "must be of type int"),
        ({"deviceMemoryScaling": -1}, "deviceMemoryScaling is -1"),
        ({"deviceMemoryScaling": "2"}, "must be of type float"),
        ({"gpuCorePolicy": "sometimes"}, "must be one of default, force, disable"),
    ],
)
def test_what_cannot_be_right_is_refused(section, words):
    """The text names the key."""
    with pytest.raises(ConfigError, match=words):
        cluster_settings(section)


@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"nodeconfig": 3}', '{"nodeconfig":[3]}'])
def test_a_config_json_of_another_form_is_refused(text):
    """Better than to run with settings that nobody chose."""
    with pytest.raises(ConfigError, match="nodeconfig"):
        node_settings(Settings(), text, "n1")
