"""What a node does to a plugin that binds late: reboots, lost cards, pods of nobody."""

import fcntl
import os
import struct

import pytest
from plugin_kit import CARDS, FakeCluster, FakeKubelet, FakeNvml, make_pod, run, running, whole

from hami_device_plugin.settings import Settings
from hamikit import names
from hamikit.gpu import Card
from hamikit.region import LOCK_BASE, read_control

F_OFD_SETLK = 37
NOW = "--prestart-seconds=0"


def test_a_static_pod_is_told_what_to_do_instead(node):
    """Kubelet's id of it is nobody's in the API server, which knows its mirror only."""

    async def scenario():
        cluster = FakeCluster()
        cluster.unlisted["mirror"] = make_pod("mirror", "GPU-a,NVIDIA,100,0:;")
        async with whole(node, cluster, "--prestart-seconds=1.5") as (kubelet, _):
            await kubelet.admit("of-the-file", "c", ["slot-0000"])
            said = await kubelet.refused(["slot-0000"])
            assert "a static pod is never granted a card; let a Deployment" in said
            assert node.specs() == {}

    run(scenario())


@pytest.mark.parametrize(
    ("grant", "words"),
    [
        (None, "was bound to node n1 without a grant"),
        ("GPU-a,NVIDIA,1,0:GPU-b,NVIDIA,1,0:;", "holds 1 devices, but was granted 2"),
        ("GPU-a,NVIDIA,many,0:;", "cannot be read"),
    ],
    ids=["bound by somebody else", "count", "unreadable"],
)
def test_who_has_no_grant_is_told_by_an_event(node, grant, words):
    """Also by ours, which stays when kubelet's own event is gone."""

    async def scenario():
        cluster = FakeCluster([make_pod("u1", grant)])
        async with whole(node, cluster) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            assert words in await kubelet.refused(["slot-0000"])
            ((pod, reason, text),) = cluster.reported
            assert (pod, reason) == ("default/pod-u1", "NoGrant")
            assert words in text

    run(scenario())


def test_a_grant_for_a_card_that_vanished_is_retried(node):
    """Kubelet tries again, and the container starts once the card is there."""
    nvml = FakeNvml(CARDS[:1])

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-b,NVIDIA,100,0:;")])
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        async with running(node, cluster, NOW, nvml=nvml) as daemon:
            while len(await kubelet.next_list()) < 10:
                pass
            name = await kubelet.admit("u1", "c", ["slot-0000"])
            said = await kubelet.refused(["slot-0000"])
            assert "was granted GPU-b, which node n1 does not have" in said
            nvml.found = CARDS
            daemon.cards.look()
            await kubelet.start_container(["slot-0000"])
            assert list(node.specs()) == [name]
        await kubelet.stop()

    run(scenario())


def test_a_force_deleted_pod_holds_its_card_while_it_runs(node):
    """Its object is gone, its process is not: the next pod waits until that has ended."""
    first = make_pod("u1", "GPU-a,NVIDIA,30000,0:;")
    second = make_pod("u2", "GPU-a,NVIDIA,30000,0:;")

    async def scenario():
        cluster = FakeCluster([first, second])
        async with whole(node, cluster, NOW) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            await kubelet.start_container(["slot-0000"])
            with (node.vgpu / "containers/u1_c/usage").open("r+b") as usage:
                lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, LOCK_BASE + 3, 1, 0)
                fcntl.fcntl(usage, F_OFD_SETLK, lock)
                cluster.remove(first)
                kubelet.forget("u1")
                await kubelet.admit("u2", "c", ["slot-0001"])
                said = await kubelet.refused(["slot-0001"])
                assert "more than fit beside the 30000 of 40960 that default/pod-u1" in said
            await kubelet.start_container(["slot-0001"])

    run(scenario())


async def having_run(node, kubelet, pod):
    """Its container starts on slot 19 and the plugin ends; the specifications there are then."""
    async with running(node, FakeCluster([pod])):
        await kubelet.all_slots()
        await kubelet.admit("u1", "c", ["slot-0019"])
        await kubelet.start_container(["slot-0019"])
    return node.specs()


def test_after_a_reboot_a_container_starts_with_the_slice_it_had(node):
    """The folder of the specifications was in memory; kubelet's checkpoint is on disk."""

    async def scenario():
        pod = make_pod("u1", "GPU-b,NVIDIA,3000,30:;")
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        before = await having_run(node, kubelet, pod)
        await kubelet.stop()
        for path in node.cdi.iterdir():
            path.unlink()
        kubelet.lists = type(kubelet.lists)()
        await kubelet.start()
        async with running(node, FakeCluster([pod])):
            assert (await kubelet.next_list())["slot-0019"]
            await kubelet.start_container(["slot-0019"])
            assert node.specs() == before
        await kubelet.stop()
        control = read_control(node.vgpu / "containers/u1_c/control")
        assert [(d.uuid, d.core_limit_percent) for d in control.devices] == [("GPU-b", 30)]

    run(scenario())


class Away(FakeCluster):
    """An API server that does not answer after our start."""

    def start(self):
        """Nothing is told of any pod."""


@pytest.mark.parametrize("had_run", [True, False])
def test_who_has_run_before_runs_again_without_an_api_server(node, had_run):
    """A crash of a container and of the plugin beside each other; who never ran is waited for."""

    async def scenario():
        pod = make_pod("u1", "GPU-b,NVIDIA,3000,30:;")
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        before = await having_run(node, kubelet, pod)
        async with running(node, Away(), "--prestart-seconds=0"):
            await kubelet.all_slots()
            if had_run:
                await kubelet.start_container(["slot-0019"])
            else:
                # Another token, as a container has that this plugin's predecessor never started.
                await kubelet.admit("u1", "c", ["slot-0019"])
                assert "the API server has not told" in await kubelet.refused(["slot-0019"])
            assert node.specs() == before
        await kubelet.stop()

    run(scenario())


def test_a_pod_that_the_whole_list_lacks_does_not_run_again(node):
    """It was deleted, whatever kubelet still believes: its card may be another's by now."""

    async def scenario():
        pod, cluster = make_pod("u1", "GPU-b,NVIDIA,3000,30:;"), FakeCluster()
        async with whole(node, cluster, "--prestart-seconds=0") as (kubelet, _):
            cluster.put(pod)
            await kubelet.admit("u1", "c", ["slot-0019"])
            await kubelet.start_container(["slot-0019"])
            cluster.remove(pod)
            assert "the API server has not told" in await kubelet.refused(["slot-0019"])

    run(scenario())


def test_ids_of_another_resource_are_nobodys_business(node):
    """Two plugins may give the same names to their devices."""

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-a,NVIDIA,100,0:;")])
        async with whole(node, cluster) as (kubelet, daemon):
            name = await kubelet.admit("u1", "c", ["slot-0003"])
            stock = daemon.stock
            entries = daemon.checkpoint.read().with_ids(stock.resource, ["slot-0003"])
            assert [held.cdi_name for held in entries] == [name]
            path = node.plugins / "kubelet_internal_checkpoint"
            text = path.read_text()
            other = text.replace(names.RESOURCE_COUNT, "example.com/nic")
            path.write_text(other)
            assert stock.held() == frozenset()
            path.write_text(text)
            await kubelet.start_container(["slot-0003"])
            assert list(node.specs()) == [name]

    run(scenario())


def test_an_integrated_card_has_the_memory_that_the_operator_tells(node):
    """It shares the host's, has no PCI address and no events, and is otherwise like others."""
    nvml = FakeNvml((Card("GPU-b", 1, "Orin (nvgpu)", None),))
    settings = Settings(preconfigured_memory_mib=8000, split_count=20)

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-b,NVIDIA,3000,30:;")])
        async with whole(node, cluster, nvml=nvml, settings=settings) as (kubelet, daemon):
            (device,) = daemon.stock.devices
            assert (device.type, device.devmem) == ("NVIDIA-Orin (nvgpu)", 8000)
            name = await kubelet.admit("u1", "c", ["slot-0003"])
            await kubelet.start_container(["slot-0003"])
            paths = [d["path"] for d in node.specs()[name]["deviceNodes"]]
            assert paths == ["/dev/nvidiactl", "/dev/nvidia1"]

    run(scenario())


def test_whoever_holds_one_of_several_cards_counts_for_it(node):
    """The two pods have one card in common."""
    both = "GPU-a,NVIDIA,40000,1:GPU-b,NVIDIA,40000,1:;"
    pods = [make_pod("u1", both), make_pod("u2", "GPU-b,NVIDIA,1000,1:;")]

    async def scenario():
        async with whole(node, FakeCluster(pods), NOW) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000", "slot-0001"])
            await kubelet.start_container(["slot-0000", "slot-0001"])
            await kubelet.admit("u2", "c", ["slot-0002"])
            assert "default/pod-u1 still hold" in await kubelet.refused(["slot-0002"])

    run(scenario())
