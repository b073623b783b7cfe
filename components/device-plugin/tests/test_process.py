"""The program itself, as a process, on simulated cards and a simulated cluster."""

import asyncio
import json
import random
import signal
import subprocess
import sys

import grpc
import pytest
from plugin_api import ApiServer
from plugin_kit import DEADLINE_S, FakeKubelet, make_pod, run
from plugin_process import TOOLS, Process, build_fakegpu, install_cards, listed, registered, until

from hamikit import names
from hamikit.codec import decode_register
from hamikit.region import read_control


@pytest.fixture(scope="session")
def fakegpu(tmp_path_factory):
    """The simulated driver, built once."""
    return build_fakegpu(tmp_path_factory.mktemp("fakegpu"))


@pytest.fixture
def cards(node, fakegpu):
    """Four cards on the node; returns how to ask the simulation for something."""
    install_cards(node, fakegpu)

    def simulate(verb, *what):
        state = node.root / "driver/run/nvidia-fake/state"
        subprocess.run([fakegpu, verb, "--state", state, *what], check=True, capture_output=True)

    return simulate


def test_killed_and_started_again_it_serves_the_old_grants(node, cards):
    """Kill -9 loses nothing: held ids are healthy at once, a restarted container has its slice."""

    async def scenario(server):
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        async with Process(node, server) as plugin:
            await listed(kubelet, 40)
            uuid = (await until(lambda: registered(server), "the register annotation"))[2].id
            assert server.annotations[names.NODE_BINDING] == names.BINDING_LATE
            server.put(make_pod("u1", f"{uuid},NVIDIA,3000,30:;"))
            await kubelet.admit("u1", "c", ["slot-0039"])
            await kubelet.start_container(["slot-0039"])
            before = node.specs()
            paths = [d["path"] for (spec,) in [before.values()] for d in spec["deviceNodes"]]
            assert "/dev/nvidia2" in paths
            assert "/dev/nvidia0" not in paths

            await plugin.end(signal.SIGKILL)
            kubelet.lists = asyncio.Queue()
            await plugin.start()
            assert (await kubelet.next_list())["slot-0039"]
            await kubelet.start_container(["slot-0039"])
            assert node.specs() == before
        await kubelet.stop()

    with ApiServer() as server:
        run(scenario(server))


@pytest.mark.parametrize("turn", range(3))
def test_killed_at_any_moment_of_many_starts(node, cards, turn):
    """Afterwards every container has exactly its grant, and no file is half written."""
    seed = random.SystemRandom().randrange(10**6)
    moment = random.Random(seed).uniform(0, 0.15)
    print(f"turn {turn}, seed {seed}: killed after {moment:.3f} s")  # noqa: T201
    numbers = range(12)

    async def start(kubelet, number):
        """Start a container as kubelet does: again after each failure."""
        for _ in range(400):
            try:
                return await kubelet.start_container([f"slot-{number:04d}"])
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
        raise AssertionError(f"container {number} did not start")

    async def scenario(server):
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        async with Process(node, server) as plugin:
            await listed(kubelet, 40)
            found = await until(lambda: registered(server), "the register annotation")
            for n in numbers:
                server.put(make_pod(f"u{n}", f"{found[n % 4].id},NVIDIA,{1000 + n},{n}:;"))
                await kubelet.admit(f"u{n}", "c", [f"slot-{n:04d}"])
            starts = asyncio.gather(*(start(kubelet, n) for n in numbers))
            await asyncio.sleep(moment)  # the moment itself is what this test varies
            await plugin.end(signal.SIGKILL)
            await plugin.start()
            await starts
        await kubelet.stop()
        for n in numbers:
            path = node.vgpu / "containers" / f"u{n}_c" / "control"
            (device,) = read_control(path).devices
            assert device.uuid == found[n % 4].id
            assert device.memory_limit_bytes == (1000 + n) << 20
            assert device.core_limit_percent == n
        said = {spec["env"][1] for spec in node.specs().values()}
        assert said == {f"CUDA_DEVICE_MEMORY_LIMIT_0={1000 + n}m" for n in numbers}

    with ApiServer() as server:
        run(scenario(server))


@pytest.mark.parametrize(
    "fault", [("xid", "1", "48"), ("ecc", "1"), ("lose", "1")], ids=lambda fault: fault[0]
)
def test_a_card_that_fails_is_withdrawn_until_it_is_repaired(node, cards, fault):
    """It becomes unhealthy in the annotation and loses its free slots, and gets both back."""

    async def scenario(server):
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        async with Process(node, server):
            await listed(kubelet, 40)
            await until(lambda: registered(server), "the register annotation")
            cards("xid", "1", "31")
            cards(*fault)
            await listed(kubelet, 30)
            await until(lambda: not registered(server)[1].health, "an unhealthy card")
            assert [card.health for card in registered(server)] == [True, False, True, True]
            cards("restore", "1")
            await listed(kubelet, 40)
            await until(lambda: registered(server)[1].health, "a healthy card")
        await kubelet.stop()

    with ApiServer() as server:
        run(scenario(server))


def test_settings_are_taken_over_while_it_runs(node, cards):
    """The annotation and the slots follow the file of single nodes, which may come later."""
    config = node.root / "config.json"

    async def scenario(server):
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        flags = (f"--node-config-file={config}", "--enable-topology-score=true")
        async with Process(node, server, *flags):
            await listed(kubelet, 40)
            before = await until(lambda: registered(server), "the register annotation")
            scores = json.loads(server.annotations[names.NODE_SCORE])
            entry = {"name": "n1", "devicesplitcount": 3, "filterdevices": {"index": [0]}}
            config.write_text(json.dumps({"nodeconfig": [entry]}))
            await listed(kubelet, 9)
            await until(lambda: len(registered(server)) == 3, "three cards")
            assert [card.count for card in registered(server)] == [3, 3, 3]
            assert len(scores) == 4
            # Same socket: 30 and four links; the other socket: 10 and four links.
            assert scores[0]["score"][before[1].id] == 430
            assert scores[0]["score"][before[2].id] == 410
            await until(lambda: names.NODE_SCORE in server.annotations, "scores")
            assert len(json.loads(server.annotations[names.NODE_SCORE])) == 3
        await kubelet.stop()

    with ApiServer() as server:
        run(scenario(server))


def test_another_resource_name_is_taken_over_in_place(node, cards):
    """The same process starts afresh: the node has its cards again without kubelet's back-off."""
    config = node.root / "device-config.yaml"
    config.write_text("nvidia: {}")

    async def scenario(server):
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        async with Process(node, server, f"--device-config-file={config}") as plugin:
            assert (await kubelet.registered.get()).resource_name == "nvidia.com/gpu"
            await listed(kubelet, 40)
            config.write_text("nvidia: {resourceCountName: acme.com/gpu}")
            again = await asyncio.wait_for(kubelet.registered.get(), DEADLINE_S)
            assert again.resource_name == "acme.com/gpu"
            await listed(kubelet, 40)
            assert await plugin.end(signal.SIGTERM) == 0
        await kubelet.stop()

    with ApiServer() as server:
        run(scenario(server))


def test_a_driver_that_is_not_there_yet_is_waited_for(node, fakegpu):
    """The node says what is missing, and gets its cards without a restart."""

    async def scenario(server):
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        async with Process(node, server):
            said = lambda: server.annotations.get(names.NODE_BINDING_REASON, "")  # noqa: E731
            await until(lambda: "NVML does not start" in said(), "the reason")
            assert names.NODE_BINDING not in server.annotations
            install_cards(node, fakegpu)
            await listed(kubelet, 40)
            await until(lambda: len(registered(server)) == 4, "the cards")
            await until(lambda: not said(), "no reason any more")
        await kubelet.stop()

    with ApiServer() as server:
        run(scenario(server))


def test_ends_in_order_on_sigterm(node, cards):
    """The node is paused, the exit status is 0, and the next plugin lifts the pause."""

    async def scenario(server):
        kubelet = FakeKubelet(node.plugins)
        await kubelet.start()
        async with Process(node, server) as plugin:
            await listed(kubelet, 40)
            await until(lambda: registered(server), "the register annotation")
            assert await plugin.end(signal.SIGTERM) == 0
            assert "is being replaced" in server.annotations[names.NODE_PAUSED]
            await plugin.start()
            await until(lambda: names.NODE_PAUSED not in server.annotations, "no pause")
        await kubelet.stop()

    with ApiServer() as server:
        run(scenario(server))


def test_kubelet_is_told_before_the_clients_libraries_are_read():
    """The Kubernetes client takes half of the imports' time; meanwhile kubelet would fail pods."""
    code = "import sys, hami_device_plugin.__main__; sys.exit('kubernetes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_wrong_configuration_is_one_line_and_code_2(node):
    """No traceback for a mistake in a file."""
    broken = node.root / "device-config.yaml"
    broken.write_text("nvidia: {deviceSplitCount: many}")
    command = [TOOLS / "hami-device-plugin", "--node-name=n1", f"--device-config-file={broken}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "devicesplitcount is 'many', must be of type int" in done.stderr


def test_once_prints_what_would_be_announced(node, cards):
    """Nothing is written anywhere."""
    root = node.root / "driver"
    command = [TOOLS / "hami-device-plugin", "--node-name=n1", "--once", f"--driver-root={root}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert [card.devmem for card in decode_register(first)] == [40960] * 4
    assert second == "40 slots of nvidia.com/gpu"
