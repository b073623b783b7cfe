"""The operator's settings for this node."""

import json

import pytest

from hami_device_plugin.grant import ContainerGrant, Slice
from hami_device_plugin.limits import control
from hami_device_plugin.settings import Settings, Wish, cluster_settings, node_settings
from hamikit.deviceconfig import ConfigError
from hamikit.region import Control, ControlDevice, ControlFlag, CorePolicy, OverheadPolicy
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
        (ControlDevice("GPU-a", 3000 * 1024 * 1024, 30),),
        ControlFlag.NONE,
        priority=0,
        overhead_policy=OverheadPolicy.STRICT,
    )


def test_the_operators_word_is_in_the_control_file():
    """Limits of cores off, variables on, a level of logs."""
    settings = Settings(disable_core_limit=True, env_may_loosen=True, log_level=4)
    wanted = control(ContainerGrant("c", Role.APP, ()), settings)
    assert wanted.core_policy is CorePolicy.DISABLE
    assert (wanted.flags, wanted.log_level) == (ControlFlag.ENV_MAY_LOOSEN, 4)
    shared = control(
        ContainerGrant("c", Role.APP, ()), cluster_settings({"gpuCorePolicy": "share"})
    )
    assert shared.core_policy is CorePolicy.SHARE


def test_virtual_memory_gives_each_its_share_of_the_real():
    """With memory scaled by 1.5 two thirds of a limit are the card's; off by default."""
    grant = ContainerGrant("c", Role.APP, (Slice("GPU-a", 3000, 30),))
    (device,) = control(grant, cluster_settings({"deviceMemoryScaling": 1.5})).devices
    assert (device.memory_limit_bytes >> 20, device.real_memory_bytes >> 20) == (3000, 2000)
    for scaling in (1, 0.5):
        (device,) = control(grant, cluster_settings({"deviceMemoryScaling": scaling})).devices
        assert device.real_memory_bytes == 0


def test_overhead_is_counted_unless_the_operator_says_otherwise():
    """For the cluster in device-config.yaml, for a node in config.json."""
    grant = ContainerGrant("c", Role.APP, ())
    cluster = cluster_settings({"overheadPolicy": "report"})
    assert control(grant, cluster).overhead_policy is OverheadPolicy.REPORT
    node = node_settings(cluster, node_file(overheadPolicy="strict"), "n1")
    assert control(grant, node).overhead_policy is OverheadPolicy.STRICT
    with pytest.raises(ConfigError, match="one of strict, report"):
        cluster_settings({"overheadPolicy": "loose"})


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


def test_the_case_of_a_nodes_keys_is_no_matter_and_nothing_counts_too():
    """HAMi v2.10 lets an empty value stand aside (its vector 9); here what is written counts."""
    cluster = cluster_settings({"deviceMemoryScaling": 1, "enableNumaTopology": True})
    entry = {"DeviceMemoryScaling": 1.5, "enablenumatopology": False}
    settings = node_settings(cluster, node_file(**entry), "n1")
    assert (settings.memory_scaling, settings.numa_hints) == (1.5, False)


def test_a_later_entry_wins_and_says_only_what_it_says():
    """Filters of an earlier one stay unless it has some."""
    first = {"name": "n1", "filterdevices": {"index": [1]}, "binding": "lock"}
    text = json.dumps({"NodeConfig": [first, {"Name": "n1", "binding": "auto"}]})
    settings = node_settings(Settings(), text, "n1")
    assert settings.hidden_indexes == {1}
    assert settings.wish is Wish.AUTO


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
        ({"binding": "early"}, "must be one of late, lock, auto"),
        ({"binding": ["lock"]}, "must be one of late, lock, auto"),
        ({"gpuCorePolicy": "sometimes"}, "must be one of default, force, disable"),
    ],
)
def test_what_cannot_be_right_is_refused(section, words):
    """The text names the key."""
    with pytest.raises(ConfigError, match=words):
        cluster_settings(section)


@pytest.mark.parametrize("value", ["GPU-a", {"uuid": "GPU-a"}, {"index": ["0"]}, {"index": 3}])
def test_filters_of_another_form_are_refused(value):
    """A text is no list of cards."""
    with pytest.raises(ConfigError, match="filterdevices is"):
        node_settings(Settings(), node_file(filterdevices=value), "n1")


@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"nodeconfig": 3}', '{"nodeconfig":[3]}'])
def test_a_config_json_of_another_form_is_refused(text):
    """Better than to run with settings that nobody chose."""
    with pytest.raises(ConfigError, match="nodeconfig"):
        node_settings(Settings(), text, "n1")
