"""Containers on MIG instances: the plugin on a simulated card that is cut while it runs."""

import asyncio
import json
import os
import subprocess
from contextlib import asynccontextmanager

import grpc
import pytest
from mig_kit import environment, inside, pod_on
from plugin_api import ApiServer
from plugin_kit import DEADLINE_S, FakeKubelet, run
from plugin_process import TOOLS, Process, build_fakegpu, install_cards, listed, registered, until

from hami_device_plugin.api import deviceplugin_pb2 as api
from hamikit import names
from hamikit.mig import decode_mig_allocations


@pytest.fixture(scope="session")
def fakegpu(tmp_path_factory):
    """The simulated driver, built once."""
    return build_fakegpu(tmp_path_factory.mktemp("fakegpu"))


@pytest.fixture
def simulate(node, fakegpu):
    """Four cards on the node, the first two in MIG mode; how to ask the simulation."""
    install_cards(node, fakegpu)

    def simulate(verb, *what):
        state = node.root / "driver/run/nvidia-fake/state"
        done = subprocess.run(
            [fakegpu, verb, "--state", state, *what], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    simulate("mig", "0", "on")
    simulate("mig", "1", "on")
    return simulate


@pytest.fixture
def mig_mode(node):
    """The node's config.json says `operatingmode: mig`."""
    path = node.root / "config.json"
    path.write_text(json.dumps({"nodeconfig": [{"name": "n1", "operatingmode": "mig"}]}))
    return f"--node-config-file={path}"


@asynccontextmanager
async def at_work(node, server, *flags):
    """The plugin with its slots listed and its cards announced: kubelet, and the cards."""
    kubelet = FakeKubelet(node.plugins)
    await kubelet.start()
    async with Process(node, server, *flags):
        await listed(kubelet, 20)
        yield kubelet, await until(lambda: registered(server), "the register annotation")
    await kubelet.stop()


def test_a_container_waits_for_its_instance_and_gets_its_device(node, simulate, mig_mode):
    """The call ends with the record on the pod; no limiter, the card's and the instance's nodes."""

    async def scenario(server):
        async with at_work(node, server, mig_mode) as (kubelet, cards):
            assert [card.mode for card in cards] == ["mig", "mig", "hami-core", "hami-core"]
            assert [card.health for card in cards] == [True, True, False, False]
            profiles = [profile.name for profile in cards[1].mig_profiles]
            assert profiles == ["1g.5gb", "2g.10gb", "3g.20gb", "7g.40gb"]
            uuid = cards[1].id
            server.put(pod_on("u1", uuid, 3))
            name = await kubelet.admit("u1", "c", ["slot-0000"])
            start = asyncio.create_task(kubelet.start_container(["slot-0000"]))
            await kubelet.plugin.call("GetDevicePluginOptions", api.Empty())
            assert node.specs() == {}
            mig = simulate("cut", "1", "1g.5gb", "3")
            made = {"migUUID": mig, "gpuInstanceID": 10, "computeInstanceID": 0}
            server.put(pod_on("u1", uuid, 3, **made))
            await asyncio.wait_for(start, 30)
            spec = node.specs()[name]
            assert spec["env"] == ["NVIDIA_VISIBLE_DEVICES=void"]
            paths = [device["path"] for device in spec["deviceNodes"]]
            caps = [f"/dev/nvidia-caps/nvidia-cap{cap}" for cap in (228, 229)]
            assert paths == ["/dev/nvidia-uvm", "/dev/nvidiactl", "/dev/nvidia1", *caps]
            assert not any("vgpu" in mount["containerPath"] for mount in spec["mounts"])
            assert list((node.vgpu / "containers").iterdir()) == []

    with ApiServer() as server:
        run(scenario(server))


def test_two_pods_on_one_card_see_each_its_own_instance(node, simulate, mig_mode, fakegpu):
    """Of two profiles: CUDA and NVML show this instance and no other, with its memory."""
    wanted = {"u1": ("1g.5gb", 0, 7, 4864), "u2": ("3g.20gb", 4, 2, 20096)}

    async def scenario(server):
        async with at_work(node, server, mig_mode) as (kubelet, cards):
            for number, (uid, (profile, start, gi, memory)) in enumerate(wanted.items()):
                mig = simulate("cut", "0", profile, str(start))
                made = {"migUUID": mig, "gpuInstanceID": gi, "computeInstanceID": 0}
                server.put(pod_on(uid, cards[0].id, start, **made))
                name = await kubelet.admit(uid, "c", [f"slot-{number:04d}"])
                await kubelet.start_container([f"slot-{number:04d}"])
                spec = node.specs()[name]
                (seen,) = json.loads(inside(node, fakegpu, spec, "cuprobe", "info"))["cards"]
                assert seen["uuid"] == mig.replace("MIG-", "GPU-")
                assert seen["total"] == memory << 20
                lines = inside(node, fakegpu, spec, "nvidia-smi", "-L").splitlines()
                assert [line.split("UUID: ")[1] for line in lines] == [f"{cards[0].id})", f"{mig})"]

    with ApiServer() as server:
        run(scenario(server))


class Manager:
    """mig-manager as a process of its own, beside the plugin."""

    def __init__(self, node, server):
        kubeconfig = server.kubeconfig(node.root / "kubeconfig-mig")
        (node.root / "cgroup/memory").mkdir(parents=True)
        self._command = [
            TOOLS / "hami-mig-manager",
            "--node-name=n1",
            f"--driver-root={node.root / 'driver'}",
            f"--cgroup-root={node.root / 'cgroup'}",
            "--metrics-bind-address=127.0.0.1:0",
            "--grace=0",
        ]
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}

    async def __aenter__(self):
        self._process = await asyncio.create_subprocess_exec(*self._command, env=self._environment)
        return self

    async def __aexit__(self, *_):
        self._process.kill()
        await self._process.wait()


def test_an_instance_comes_with_its_pod_and_goes_with_it(node, simulate, mig_mode, fakegpu):
    """With mig-manager beside the plugin: made for the start, kept while used, then gone."""
    hand = simulate("cut", "0", "1g.5gb", "0")

    def there():
        (card, *_) = json.loads(simulate("ledger"))["cards"]
        return {i["id"]: i for i in card["mig"]["instances"]}

    async def scenario(server):
        async with at_work(node, server, mig_mode) as (kubelet, cards), Manager(node, server):
            pod = pod_on("u1", cards[0].id, 4, 4, "3g.20gb")
            server.put(pod)
            name = await kubelet.admit("u1", "c", ["slot-0000"])
            await kubelet.start_container(["slot-0000"])
            spec = node.specs()[name]
            (record,) = decode_mig_allocations(
                server.pods["u1"].metadata.annotations[names.POD_MIG_ALLOCATIONS]
            )
            lines = inside(node, fakegpu, spec, "nvidia-smi", "-L").splitlines()
            assert lines[1].endswith(f"(UUID: {record.mig_uuid})")
            assert len(lines) == 2
            program = await asyncio.create_subprocess_exec(
                fakegpu.parent / "cuprobe",
                *("hold", "100", "forever"),
                env=environment(node, fakegpu, spec),
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                said = await asyncio.wait_for(program.stdout.readline(), DEADLINE_S)
                assert json.loads(said)["result"] == "CUDA_SUCCESS"
                assert [p["pid"] for p in there()[2]["processes"]] == [program.pid]
                server.remove(pod)
                # Whoever has made this one has heard before that the other pod is gone.
                server.put(pod_on("u2", cards[0].id, 3))
                await until(lambda: 10 in there(), f"the next instance; there are {set(there())}")
                assert set(there()) == {2, 7, 10}
            finally:
                program.kill()
                await program.wait()
            server.remove(server.pods["u2"])
            await until(
                lambda: set(there()) == {7}, f"the instances that nobody uses to go: {there()}"
            )
            assert there()[7]["devices"][0]["uuid"] == hand

    with ApiServer() as server:
        run(scenario(server))


def test_an_instance_that_another_pod_still_has_is_waited_for(node, simulate, mig_mode):
    """Two records of one instance: the second pod starts when the first one is gone."""

    async def scenario(server):
        async with at_work(node, server, mig_mode) as (kubelet, cards):
            mig = simulate("cut", "0", "1g.5gb", "0")
            made = {"migUUID": mig, "gpuInstanceID": 7, "computeInstanceID": 0}
            pods = [pod_on(uid, cards[0].id, 0, **made) for uid in ("u1", "u2")]
            for number, pod in enumerate(pods):
                server.put(pod)
                await kubelet.admit(pod.metadata.uid, "c", [f"slot-{number:04d}"])
            await kubelet.start_container(["slot-0000"])
            second = asyncio.create_task(kubelet.start_container(["slot-0001"]))
            await kubelet.plugin.call("GetDevicePluginOptions", api.Empty())
            assert len(node.specs()) == 1
            server.remove(pods[0])
            kubelet.forget("u1")
            await asyncio.wait_for(second, 30)

    with ApiServer() as server:
        run(scenario(server))


def test_an_instance_that_never_comes_is_told(node, simulate, mig_mode):
    """Within the time that a start may take, in the event's words."""

    async def scenario(server):
        async with at_work(node, server, mig_mode, "--prestart-seconds=0.3") as (kubelet, cards):
            server.put(pod_on("u1", cards[0].id, 0))
            await kubelet.admit("u1", "c", ["slot-0000"])
            with pytest.raises(grpc.aio.AioRpcError, match="which mig-manager has not made yet"):
                await kubelet.start_container(["slot-0000"])

    with ApiServer() as server:
        run(scenario(server))
