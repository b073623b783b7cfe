"""The whole plugin against a kubelet that speaks the real protocol."""

import asyncio
from contextlib import AsyncExitStack, nullcontext
from dataclasses import replace

import grpc
import msgspec
import pytest
from plugin_kit import (
    DEADLINE_S,
    FakeCluster,
    FakeKubelet,
    FakeNvml,
    make_container,
    make_pod,
    run,
    running,
    whole,
)

from hami_device_plugin.afresh import DriverReplaced, Forgotten, SettingsChanged
from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.daemon import Daemon
from hami_device_plugin.grant import pod_grant
from hami_device_plugin.kubelet import UNHEARD_S, Registrar
from hami_device_plugin.server import options
from hami_device_plugin.settings import Settings
from hamikit import names
from hamikit.devices import NVIDIA
from hamikit.gpu import GpuError
from hamikit.objects import Node, NodeStatus
from hamikit.region import read_control, read_usage

OFFERS_NONE = Node(status=NodeStatus(allocatable={names.RESOURCE_COUNT: "0"}))

MIB = 1024 * 1024


def env_of(spec):
    """A spec's variables as a dictionary."""
    return dict(item.split("=", 1) for item in spec["env"])


def limits_of(node, uid, container):
    """What a container's control file says: UUID, MiB, percent."""
    path = node.vgpu / "containers" / f"{uid}_{container}" / "control"
    devices = read_control(path).devices
    return [(d.uuid, d.memory_limit_bytes // MIB, d.core_limit_percent) for d in devices]


def test_registers_below_a_folder_and_lists_every_slot(node):
    """Kubelet gets an endpoint in a subfolder, PreStart is required, slots are anonymous."""

    async def scenario():
        async with whole(node) as (kubelet, daemon):
            request = kubelet.registered.get_nowait()
            assert (request.version, request.endpoint) == ("v1beta1", "hami/nvidia-gpu.sock")
            assert request.resource_name == "nvidia.com/gpu"
            assert request.options.pre_start_required
            options = await kubelet.plugin.call("GetDevicePluginOptions", api.Empty())
            assert options.pre_start_required
            assert list(daemon.stock.slots()) == [f"slot-{n:04d}" for n in range(20)]

    run(scenario())


def test_a_container_gets_exactly_its_grant(node):
    """The spec carries the granted card and our files, and replaces what Allocate said."""

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-b,NVIDIA,3000,30:;")])
        async with whole(node, cluster) as (kubelet, _):
            name = await kubelet.admit("u1", "c", ["slot-0003"])
            assert node.specs() == {}
            await kubelet.start_container(["slot-0003"])
            spec = node.specs()[name]
            assert env_of(spec) == {
                "NVIDIA_VISIBLE_DEVICES": "void",
                "CUDA_DEVICE_MEMORY_LIMIT_0": "3000m",
                "CUDA_DEVICE_SM_LIMIT": "30",
                "CUDA_DEVICE_MEMORY_SHARED_CACHE": "/usr/local/vgpu/usage",
            }
            paths = [d["path"] for d in spec["deviceNodes"]]
            assert paths == ["/dev/nvidiactl", "/dev/nvidia1"]
            folder = str(node.vgpu / "containers/u1_c")
            assert [
                (m["hostPath"], m["containerPath"], m["options"][0]) for m in spec["mounts"]
            ] == [
                ("/lib/libcuda.so.1", "/lib/libcuda.so.1", "ro"),
                (folder, "/usr/local/vgpu", "ro"),
                (f"{node.vgpu}/0.1.0/libvgpu.so", "/usr/local/vgpu/libvgpu.so", "ro"),
                (f"{folder}/control", "/usr/local/vgpu/control", "ro"),
                (f"{folder}/usage", "/usr/local/vgpu/usage", "rw"),
                (f"{node.vgpu}/0.1.0/ld.so.preload", "/etc/ld.so.preload", "ro"),
            ]
            assert limits_of(node, "u1", "c") == [("GPU-b", 3000, 30)]
            assert read_usage(node.vgpu / "containers/u1_c/usage").processes == ()

    run(scenario())


def test_allocate_gives_no_card_by_itself(node):
    """A runtime that ignores CDI shows no card, and each container gets a name of its own."""

    async def scenario():
        async with whole(node) as (kubelet, _):
            one = api.ContainerAllocateRequest(devices_ids=["slot-0000"])
            request = api.AllocateRequest(container_requests=[one, one])
            answer = await kubelet.plugin.call("Allocate", request)
            first, second = answer.container_responses
            assert dict(first.envs) == {"NVIDIA_VISIBLE_DEVICES": "void"}
            assert [*first.mounts, *first.devices, *first.annotations] == []
            assert first.cdi_devices[0].name != second.cdi_devices[0].name
            assert first.cdi_devices[0].name.startswith("hami.io/vgpu=")

    run(scenario())


def test_init_and_app_container_with_the_same_ids_get_their_own_limits(node):
    """Kubelet reuses an init container's ids; the stored answers tell the containers apart."""
    pod = make_pod(
        "u1",
        "GPU-a,NVIDIA,500,10:;GPU-b,NVIDIA,2000,40:;",
        [make_container("app", 2000)],
        [make_container("prepare", 500)],
    )

    async def scenario():
        async with whole(node, FakeCluster([pod])) as (kubelet, _):
            init = await kubelet.admit("u1", "prepare", ["slot-0000"])
            app = await kubelet.admit("u1", "app", ["slot-0000"])
            await kubelet.start_container(["slot-0000"])
            specs = node.specs()
            assert env_of(specs[init])["CUDA_DEVICE_MEMORY_LIMIT_0"] == "500m"
            assert env_of(specs[app])["CUDA_DEVICE_MEMORY_LIMIT_0"] == "2000m"
            assert limits_of(node, "u1", "prepare") == [("GPU-a", 500, 10)]
            assert limits_of(node, "u1", "app") == [("GPU-b", 2000, 40)]

    run(scenario())


def test_a_late_informer_is_waited_for(node):
    """The pod becomes known during the call, and the call succeeds."""

    async def scenario():
        cluster = FakeCluster()
        async with whole(node, cluster) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            start = asyncio.create_task(kubelet.start_container(["slot-0000"]))
            await kubelet.plugin.call("GetDevicePluginOptions", api.Empty())
            cluster.put(make_pod("u1", "GPU-a,NVIDIA,100,0:;"))
            await asyncio.wait_for(start, DEADLINE_S)
            assert limits_of(node, "u1", "c") == [("GPU-a", 100, 0)]

    run(scenario())


def test_the_api_server_is_asked_when_the_informer_stays_silent(node):
    """A pod that only a list shows is prepared."""

    async def scenario():
        cluster = FakeCluster()
        cluster.unlisted["u1"] = make_pod("u1", "GPU-a,NVIDIA,100,0:;")
        async with whole(node, cluster) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            await kubelet.start_container(["slot-0000"])
            assert limits_of(node, "u1", "c") == [("GPU-a", 100, 0)]

    run(scenario())


async def refused(kubelet, ids):
    """The plugin's words when it refuses a container start."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await kubelet.start_container(ids)
    return raised.value.details()


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (make_pod("u1", None), "without a grant"),
        (
            make_pod("u1", "GPU-a,NVIDIA,1,0:GPU-b,NVIDIA,1,0:;"),
            "holds 1 devices, but was granted 2",
        ),
        (make_pod("u1", ";"), "has nothing for it"),
        (make_pod("u1", "GPU-a,NVIDIA,x,0:;"), "cannot be read"),
        (make_pod("u1", "GPU-z,NVIDIA,1,0:;"), "GPU-z, which node n1 does not have"),
        (make_pod("u1", "GPU-a,NVIDIA,1,0:;", deletion_timestamp="now"), "is being deleted"),
    ],
    ids=["no grant", "count", "not this container", "garbage", "other card", "deleted"],
)
def test_what_is_wrong_is_refused_at_once_and_says_so(node, pod, words):
    """No spec appears, and kubelet shows the words as an event."""

    async def scenario():
        async with whole(node, FakeCluster([pod])) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            assert words in await refused(kubelet, ["slot-0000"])
            assert node.specs() == {}

    run(scenario())


def test_a_pod_that_passed_the_webhook_by_is_refused(node):
    """It has no label, so nobody accounts for it, whatever its annotations say."""

    async def scenario():
        cluster = FakeCluster()
        pod = make_pod("u1", "GPU-a,NVIDIA,100,0:;")
        bare = msgspec.structs.replace(pod.metadata, labels={})
        cluster.unlisted["u1"] = msgspec.structs.replace(pod, metadata=bare)
        async with whole(node, cluster) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            assert "webhook did not admit it" in await refused(kubelet, ["slot-0000"])
            assert [reason for _, reason, _ in cluster.reported] == ["NoGrant"]

    run(scenario())


def test_without_cdi_no_container_starts(node):
    """The event names the setting and the file."""
    node.containerd.write_text(
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = false\n"
    )

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-a,NVIDIA,100,0:;")])
        async with whole(node, cluster) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            said = await refused(kubelet, ["slot-0000"])
            assert (
                f"CDI is switched off on this node (enable_cdi=false in {node.containerd})" in said
            )

    run(scenario())


def test_a_card_is_never_promised_twice(node):
    """A second pod waits while the first holds the card, and starts once it is gone."""
    first = make_pod("u1", "GPU-a,NVIDIA,30000,0:;")
    second = make_pod("u2", "GPU-a,NVIDIA,30000,0:;")

    async def scenario():
        cluster = FakeCluster([first, second])
        async with whole(node, cluster, "--prestart-seconds=0") as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            await kubelet.start_container(["slot-0000"])
            await kubelet.admit("u2", "c", ["slot-0001"])
            said = await refused(kubelet, ["slot-0001"])
            assert "30000 MiB more than fit beside the 30000 of 40960" in said
            assert "default/pod-u1" in said
            await kubelet.start_container(["slot-0000"])  # a restart of the first is no matter
            cluster.remove(first)
            await kubelet.start_container(["slot-0001"])

    run(scenario())


def test_a_missing_library_is_waited_for(node):
    """hami-core's DaemonSet may be slower than ours."""
    (node.vgpu / "current").unlink()

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-a,NVIDIA,100,0:;")])
        async with whole(node, cluster) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            start = asyncio.create_task(kubelet.start_container(["slot-0000"]))
            node.deliver("0.2.0")
            await asyncio.wait_for(start, DEADLINE_S)
            (spec,) = node.specs().values()
            assert f"{node.vgpu}/0.2.0/libvgpu.so" in [m["hostPath"] for m in spec["mounts"]]

    run(scenario())


def test_a_library_that_never_comes_is_named(node):
    """The refusal says which DaemonSet to look at."""
    (node.vgpu / "current").unlink()

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-a,NVIDIA,100,0:;")])
        async with whole(node, cluster, "--prestart-seconds=0") as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            assert "hami-core has not been delivered yet" in await refused(kubelet, ["slot-0000"])

    run(scenario())


def test_the_first_grant_counts_for_the_life_of_the_pod(node):
    """A changed annotation is an event and changes nothing, also after a restart of the plugin."""
    pod = make_pod("u1", "GPU-a,NVIDIA,100,0:;")
    forged = make_pod("u1", "GPU-a,NVIDIA,40000,0:;")

    async def scenario():
        cluster = FakeCluster([pod])
        async with whole(node, cluster) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            await kubelet.start_container(["slot-0000"])
            before = node.specs()
            cluster.put(forged, pod)
            cluster.put(forged, forged)
            await kubelet.start_container(["slot-0000"])
            assert [(key, reason) for key, reason, _ in cluster.reported] == [
                ("default/pod-u1", "GrantChanged")
            ]
        again = FakeCluster([forged])
        async with whole(node, again) as (kubelet, _):
            await kubelet.start_container(["slot-0000"])
            assert [reason for _, reason, _ in again.reported] == ["GrantChanged"]
        assert node.specs() == before
        assert limits_of(node, "u1", "c") == [("GPU-a", 100, 0)]

    run(scenario())


def test_a_running_container_keeps_its_library(node):
    """A new version is for new pods; a restarted container gets the one it had."""

    async def scenario():
        cluster = FakeCluster([make_pod(u, "GPU-a,NVIDIA,100,0:;") for u in ("u1", "u2")])
        async with whole(node, cluster) as (kubelet, _):
            old = await kubelet.admit("u1", "c", ["slot-0000"])
            await kubelet.start_container(["slot-0000"])
            node.deliver("0.2.0")
            await kubelet.start_container(["slot-0000"])
            new = await kubelet.admit("u2", "c", ["slot-0001"])
            await kubelet.start_container(["slot-0001"])
            specs = node.specs()
            libraries = {n: [m["hostPath"] for m in specs[n]["mounts"]][2] for n in (old, new)}
            assert libraries == {
                old: f"{node.vgpu}/0.1.0/libvgpu.so",
                new: f"{node.vgpu}/0.2.0/libvgpu.so",
            }

    run(scenario())


def test_registers_again_when_kubelet_is_back(node):
    """Kubelet removes its socket and makes a new one; held ids are healthy in the first list."""

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-a,NVIDIA,100,0:;")])
        async with whole(node, cluster) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0007"])
            await kubelet.stop()
            kubelet.registered, kubelet.lists = asyncio.Queue(), asyncio.Queue()
            await kubelet.start()
            await asyncio.wait_for(kubelet.registered.get(), DEADLINE_S)
            first = await kubelet.next_list()
            assert first["slot-0007"]
            await kubelet.start_container(["slot-0007"])

    run(scenario())


def test_registers_again_when_kubelet_hangs_up(node):
    """A stream that ends while kubelet lives is a reason too."""

    async def scenario():
        async with whole(node) as (kubelet, _):
            await asyncio.wait_for(kubelet.registered.get(), DEADLINE_S)
            await kubelet.hang_up()
            await asyncio.wait_for(kubelet.registered.get(), DEADLINE_S)
            assert len(await kubelet.next_list()) == 20

    run(scenario())


def test_registers_again_when_kubelet_never_listened(node):
    """Two plugins registered in the same moment and kubelet dialled the one that went away."""

    async def scenario():
        kubelet = FakeKubelet(node.plugins)
        kubelet.deaf = True
        await kubelet.start()
        try:
            async with running(node, FakeCluster()):
                await asyncio.wait_for(kubelet.registered.get(), DEADLINE_S)
                kubelet.deaf = False
                assert len(await kubelet.next_list()) == 20
        finally:
            await kubelet.stop()

    run(scenario())


def test_starts_afresh_when_kubelet_listens_and_offers_nothing(node):
    """Kubelet took another plugin for this one, and forgot the slots when that one went."""

    async def scenario():
        kubelet, cluster = FakeKubelet(node.plugins), FakeCluster()
        await kubelet.start()
        cluster.seen = cluster.now = OFFERS_NONE
        daemon = Daemon(node.config("--scan-seconds=0.1"), Settings(), FakeNvml(), connect=cluster)
        try:
            with pytest.raises(Forgotten, match="kubelet listens but offers no"):
                await asyncio.wait_for(daemon.run(asyncio.Event()), DEADLINE_S)
        finally:
            await kubelet.stop()

    run(scenario())


def test_starts_afresh_when_the_driver_was_replaced(node):
    """A process keeps the library that it loaded first, which the new driver refuses."""

    class Replaced(FakeNvml):
        replaced = True

        def handles(self):
            raise GpuError("Driver/library version mismatch")

    async def scenario():
        daemon = Daemon(node.config(), Settings(), Replaced(), connect=FakeCluster())
        with pytest.raises(DriverReplaced, match="version mismatch"):
            await asyncio.wait_for(daemon.run(asyncio.Event()), DEADLINE_S)

    run(scenario())


@pytest.mark.parametrize(
    ("settings", "afresh"),
    [
        (Settings(prefer_ids=True), True),
        (Settings(family=replace(NVIDIA, count="example.com/gpu")), True),
        (Settings(split_count=1), False),
        (Settings(family=replace(NVIDIA, overwrite_env=True, default_cores=5)), False),
    ],
)
def test_starts_afresh_for_settings_that_kubelet_is_told(node, settings, afresh):
    """At registration; others are taken over as it runs."""

    async def scenario():
        daemon = Daemon(node.config(), Settings(), FakeNvml(), connect=FakeCluster())
        with pytest.raises(SettingsChanged) if afresh else nullcontext():
            daemon._adopt(settings)

    run(scenario())


def test_whom_kubelet_need_not_hear_does_not_register_again(node):
    """A predecessor that lost its socket: to register would hang up its successor's stream."""

    async def scenario():
        kubelet = FakeKubelet(node.plugins)
        kubelet.deaf = True
        await kubelet.start()
        registrar = Registrar(
            node.plugins,
            "x.sock",
            "r",
            lambda: None,
            needed=lambda: False,
            options=options(prefers=False),
        )
        task = asyncio.create_task(registrar.run())
        try:
            await asyncio.wait_for(kubelet.registered.get(), DEADLINE_S)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(kubelet.registered.get(), 2 * UNHEARD_S)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await kubelet.stop()

    run(scenario())


def test_waits_for_a_kubelet_that_starts_later(node):
    """Without kubelet's socket nothing is tried, and nothing fails."""

    async def scenario():
        kubelet = FakeKubelet(node.plugins)
        async with running(node, FakeCluster()) as daemon:
            assert any("kubelet" in line for line in daemon.lifecycle.missing())
            await kubelet.start()
            await asyncio.wait_for(kubelet.registered.get(), DEADLINE_S)
            await kubelet.next_list()
        await kubelet.stop()

    run(scenario())


def test_a_lost_card_takes_free_slots_only(node):
    """Held ids stay healthy, because after a restart kubelet kills pods whose ids are not."""

    async def scenario():
        nvml = FakeNvml()
        async with whole(node, nvml=nvml) as (kubelet, daemon):
            await kubelet.admit("u1", "c", ["slot-0019"])
            nvml.found = nvml.found[:1]
            daemon.cards.look()
            listed = await kubelet.next_list()
            assert len(listed) == 20
            assert [i for i, healthy in listed.items() if healthy] == [
                *(f"slot-{n:04d}" for n in range(9)),
                "slot-0019",
            ]

    run(scenario())


def test_slots_that_are_no_more_do_not_vanish_at_once(node):
    """Kubelet may have asked for one of them: it crashes over an id that its list lacks."""

    async def scenario():
        async with whole(node) as (kubelet, daemon):
            daemon._adopt(Settings(split_count=3))
            daemon.cards.look()
            listed = await kubelet.next_list()
            while sum(listed.values()) != 6:
                listed = await kubelet.next_list()
            assert len(listed) == 20

    run(scenario())


def test_a_pod_of_another_plugin_is_left_alone(node):
    """What HAMi's plugin answered before a migration still stands when its container restarts."""

    async def scenario():
        async with whole(node) as (kubelet, _):
            foreign = api.ContainerAllocateResponse(envs={"NVIDIA_VISIBLE_DEVICES": "GPU-a"})
            kubelet.entries["old", "c"] = (["GPU-a-3"], foreign)
            kubelet.write_checkpoint()
            await kubelet.start_container(["GPU-a-3"])
            assert node.specs() == {}

    run(scenario())


def test_a_node_without_a_card_specification_leaves_the_card_to_the_runtime(node):
    """Then the variable that an NVIDIA runtime acts on names the granted cards."""
    (node.static / "nvidia.yaml").unlink()

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-b,NVIDIA,1,0:GPU-a,NVIDIA,2,0:;")])
        async with whole(node, cluster) as (kubelet, _):
            name = await kubelet.admit("u1", "c", ["slot-0000", "slot-0001"])
            await kubelet.start_container(["slot-0001", "slot-0000"])
            assert env_of(node.specs()[name])[names.ENV_VISIBLE_DEVICES] == "GPU-b,GPU-a"

    run(scenario())


def test_a_successor_takes_over_without_a_gap(node):
    """The old one ends without harm to the new one, and what it admitted meanwhile counts."""

    async def scenario():
        first_pod = make_pod("u0", "GPU-a,NVIDIA,40900,0:;")
        held = pod_grant(first_pod, "GPU-a,NVIDIA,40900,0:;", "n1", NVIDIA)
        second_pod = make_pod("u1", "GPU-a,NVIDIA,100,0:;")
        old, new = FakeCluster(), FakeCluster([first_pod, second_pod])
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        try:
            async with AsyncExitStack() as first:
                await first.enter_async_context(running(node, old))
                await kubelet.all_slots()
                async with running(node, new, "--prestart-seconds=0"):
                    await kubelet.all_slots()
                    (node.vgpu / "grants/u0.json").write_bytes(msgspec.json.encode(held))
                    await first.aclose()
                    # kubelet drops the newest client when any older stream ends.
                    await kubelet.hang_up()
                    await kubelet.all_slots()
                    await kubelet.admit("u1", "c", ["slot-0000"])
                    said = await refused(kubelet, ["slot-0000"])
                    assert "beside the 40900 of 40960 that default/pod-u0" in said
                    new.remove(first_pod)
                    await kubelet.start_container(["slot-0000"])
            assert (old.paused, new.paused) == (False, True)
        finally:
            await kubelet.stop()

    run(scenario())


def test_pauses_the_node_on_a_planned_end(node):
    """Nothing is bound to a node whose plugin is being replaced."""

    async def scenario():
        cluster = FakeCluster()
        async with whole(node, cluster) as (_, daemon):
            pass
        assert cluster.paused
        assert not daemon.kubelet.socket.exists()

    run(scenario())
