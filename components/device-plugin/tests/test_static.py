"""MIG instances that were made by hand, as kubelet and the runtime are told of them."""

import asyncio
import json

import pynvml
import pytest
from mig_kit import inside
from plugin_api import ApiServer
from plugin_kit import DEADLINE_S, FakeKubelet, Plugin, run
from plugin_process import Process, build_fakegpu, registered, until
from test_mig_start import simulate  # noqa: F401 - a fixture

from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.carving import Capabilities
from hami_device_plugin.cdi import CdiError, NodeSpec
from hami_device_plugin.lock import LockError
from hami_device_plugin.made import Made
from hami_device_plugin.mig import Division, Divisions
from hami_device_plugin.settings import Settings, cluster_settings, node_settings
from hami_device_plugin.static import InstanceAllocator, document, offered
from hamikit import names
from hamikit.deviceconfig import ConfigError
from hamikit.gpu import Card

ONE = Made("MIG-1", "GPU-a", "1g.5gb", 7, 0)
OTHER = Made("MIG-2", "GPU-a", "1g.5gb+me", 8, 0)
PART = Made("MIG-3", "GPU-a", "3g.20gb", 9, 0, whole=False)
COMMON = {"mounts": [{"hostPath": "/lib/x", "containerPath": "/lib/x"}]}
SPEC = NodeSpec("/etc/cdi/nvidia.yaml", "0.7.0", COMMON, {})


@pytest.fixture(scope="session")
def fakegpu(tmp_path_factory):
    """The simulated driver, built once."""
    return build_fakegpu(tmp_path_factory.mktemp("fakegpu"))


def test_resources_are_named_as_nvidia_does():
    """By profile, a plus is a dot; an instance that is cut further is not offered."""
    assert offered([ONE, OTHER, PART]) == {
        "nvidia.com/mig-1g.5gb": (ONE,),
        "nvidia.com/mig-1g.5gb.me": (OTHER,),
    }


def test_the_runtime_finds_an_instance_by_its_uuid():
    """With what all devices need, its own nodes, and no card by an NVIDIA runtime beside it."""
    found = document([ONE], [SPEC], lambda _: Division(True, 2), Capabilities(lambda: ""))
    (device,) = found["devices"]
    assert (found["kind"], found["cdiVersion"], device["name"]) == ("hami.io/mig", "0.7.0", "MIG-1")
    edits = device["containerEdits"]
    assert edits["mounts"] == COMMON["mounts"]
    assert edits["env"] == ["NVIDIA_VISIBLE_DEVICES=void"]
    assert edits["deviceNodes"][0] == {"path": "/dev/nvidia2"}
    assert len(edits["deviceNodes"]) == 3


def test_without_instances_there_is_no_file():
    """And a node without a specification of its cards says so."""
    assert document([], [], lambda _: None, Capabilities()) is None
    with pytest.raises(CdiError, match="nvidia-ctk cdi generate"):
        document([ONE], [], lambda _: Division(True, 2), Capabilities())


@pytest.mark.parametrize(
    ("way", "devices", "env"),
    [
        (names.CARDS_BY_CDI, ["hami.io/mig=MIG-1", "hami.io/mig=MIG-2"], "void"),
        (names.CARDS_BY_RUNTIME, [], "MIG-1,MIG-2"),
    ],
)
def test_a_container_gets_what_kubelet_chose(way, devices, env):
    """By the node's way to its cards."""
    [answer] = asyncio.run(InstanceAllocator(lambda: way).answers([["MIG-1", "MIG-2"]]))
    assert [device.name for device in answer.cdi_devices] == devices
    assert dict(answer.envs) == {"NVIDIA_VISIBLE_DEVICES": env}


def test_a_node_that_cannot_bring_an_instance_fails_the_pod():
    """Rather than to run it without."""
    with pytest.raises(LockError, match="by CDI or an NVIDIA runtime"):
        asyncio.run(InstanceAllocator(lambda: names.CARDS_BY_LIST).answers([["MIG-1"]]))


def test_the_strategy_is_read_from_both_files():
    """HAMi's three words; where instances come and go none is offered by name."""
    mixed = cluster_settings({"migStrategy": "mixed"})
    assert mixed.static_mig
    assert not Settings().static_mig
    assert not cluster_settings({"migStrategy": "single"}).static_mig
    for mode, static in (("mig", False), ("auto", False), ("hami-core", True)):
        entry = {"name": "n", "operatingmode": mode}
        found = node_settings(mixed, json.dumps({"nodeconfig": [entry]}), "n")
        assert found.static_mig is static
    with pytest.raises(ConfigError, match="migstrategy is 'both', must be one of none"):
        cluster_settings({"migStrategy": "both"})


class Card0:
    """A card that fails when told to."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
    NVML_ERROR_INVALID_ARGUMENT = pynvml.NVML_ERROR_INVALID_ARGUMENT
    NVML_ERROR_NOT_FOUND = pynvml.NVML_ERROR_NOT_FOUND
    NVML_GPU_INSTANCE_PROFILE_COUNT = 0

    def __init__(self):
        self.on, self.code = 1, pynvml.NVML_ERROR_NOT_FOUND

    def nvmlDeviceGetMigMode(self, _handle):  # noqa: N802
        """As told."""
        return [self.on, self.on]

    def nvmlDeviceGetMinorNumber(self, _handle):  # noqa: N802
        """The first."""
        return 0

    def nvmlDeviceGetMaxMigDeviceCount(self, _handle):  # noqa: N802
        """One place."""
        return 1

    def nvmlDeviceGetMigDeviceHandleByIndex(self, _handle, _index):  # noqa: N802
        """Nothing there, or an error."""
        raise pynvml.NVMLError(self.code)


def test_an_error_that_passes_takes_no_instance_away():
    """The card's mode does, and so does their end."""
    driver, pair = Card0(), [(Card("GPU-a", 0, "NVIDIA A100", 40960), "a")]
    divisions = Divisions(lambda: driver, static=lambda: True)
    divisions.made = {"GPU-a": (ONE,)}
    driver.code = pynvml.NVML_ERROR_UNKNOWN
    divisions.look(pair)
    assert divisions.made == {"GPU-a": (ONE,)}
    driver.code = pynvml.NVML_ERROR_NOT_FOUND
    divisions.look(pair)
    assert divisions.made == {"GPU-a": ()}
    divisions.made = {"GPU-a": (ONE,)}
    driver.on = 0
    divisions.look(pair)
    assert divisions.made == {}


async def resource(kubelet, name):
    """Wait until a plugin for this resource has come; it, as kubelet sees it."""
    while True:
        request = await asyncio.wait_for(kubelet.registered.get(), DEADLINE_S)
        if request.resource_name == name:
            assert not request.options.pre_start_required
            return Plugin(kubelet.folder / request.endpoint)


async def ids(stream, number):
    """The first list with so many instances."""
    while True:
        answer = await asyncio.wait_for(stream.read(), DEADLINE_S)
        if len(answer.devices) == number:
            return {device.ID for device in answer.devices}


def test_instances_of_a_node_are_offered_as_they_come_and_go(node, fakegpu, simulate):  # noqa: F811
    """A container sees the one that it was given; the cards themselves take no shares."""
    path = node.root / "config.json"
    path.write_text(json.dumps({"nodeconfig": [{"name": "n1", "migstrategy": "mixed"}]}))
    first = simulate("cut", "0", "1g.5gb", "0")

    async def scenario(server):
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        async with Process(node, server, f"--node-config-file={path}"):
            plugin = await resource(kubelet, "nvidia.com/mig-1g.5gb")
            stream = plugin.list_and_watch()
            assert await ids(stream, 1) == {first}
            second = simulate("cut", "1", "1g.5gb", "6")
            assert await ids(stream, 2) == {first, second}
            cards = await until(lambda: registered(server), "the register annotation")
            assert [card.health for card in cards] == [False, False, True, True]

            wish = api.ContainerAllocateRequest(devices_ids=[second])
            request = api.AllocateRequest(container_requests=[wish])
            [answer] = (await plugin.call("Allocate", request)).container_responses
            assert [device.name for device in answer.cdi_devices] == [f"hami.io/mig={second}"]
            told = json.loads((node.cdi / names.CDI_FILE_MIG).read_text())
            edits = {d["name"]: d["containerEdits"] for d in told["devices"]}
            said = inside(node, fakegpu, edits[second], "nvidia-smi", "-L")
            assert (said.count("MIG-"), second in said) == (1, True)
            stream.cancel()
            await plugin.close()
        await kubelet.stop()

    with ApiServer() as server:
        run(scenario(server))
