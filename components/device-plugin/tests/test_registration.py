"""When the plugin registers with kubelet, and how it takes its leave."""

import asyncio

import pytest
from plugin_kit import (
    DEADLINE_S,
    FakeCluster,
    FakeKubelet,
    Plugin,
    make_pod,
    run,
    whole,
)

from hami_device_plugin.daemon import DRAIN_LOOK_S
from hami_device_plugin.kubelet import Registrar
from hami_device_plugin.server import options


def registrar(folder):
    """A registrar that never misses kubelet by itself: only what it sees counts."""
    return Registrar(
        folder,
        "x.sock",
        "r",
        lambda: None,
        needed=lambda: False,
        options=options(prefers=False),
    )


def test_kubelets_socket_is_cause_enough(node):
    """It is seen when it appears, by a watch of the folder: every moment later costs pods."""

    async def scenario():
        kubelet = FakeKubelet(node.plugins)
        task = asyncio.create_task(registrar(node.plugins).run())
        try:
            for _ in range(2):
                await kubelet.start()
                await asyncio.wait_for(kubelet.registered.get(), DEADLINE_S)
                await kubelet.stop()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(scenario())


def test_another_stream_that_is_still_open_is_no_cause(node):
    """A registration would only end that one: kubelet hangs up on a plugin that comes anew."""

    async def scenario():
        async with whole(node) as (kubelet, daemon):
            await asyncio.wait_for(kubelet.registered.get(), DEADLINE_S)
            second = Plugin(daemon.kubelet.socket)
            stream = second.list_and_watch()
            assert len((await stream.read()).devices) == 20
            stream.cancel()
            await second.close()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(kubelet.registered.get(), 0.5)
            await kubelet.hang_up()
            await asyncio.wait_for(kubelet.registered.get(), DEADLINE_S)

    run(scenario())


def test_bound_pods_are_admitted_before_a_planned_end(node):
    """The node is paused first, and kubelet takes its time for what was bound before that."""

    class Paused(FakeCluster):
        async def pause(self):
            await super().pause()
            self.admission = asyncio.create_task(self.admit())

        async def admit(self):
            await asyncio.sleep(3 * DRAIN_LOOK_S)
            return await self.kubelet.admit("u1", "c", ["slot-0000"])

    async def scenario():
        cluster = Paused([make_pod("u1", "GPU-a,NVIDIA,100,1:;")])
        async with whole(node, cluster) as (kubelet, _):
            cluster.kubelet = kubelet
        assert (await cluster.admission).startswith("c")

    run(scenario())


def test_a_successor_that_comes_during_the_end_keeps_its_socket(node):
    """Kubelet would find nothing there, and fail every pod that comes next."""

    class Late(FakeCluster):
        async def pause(self):
            await super().pause()
            self.successor.write_text("its own")
            self.successor.rename(self.socket)

    async def scenario():
        cluster = Late()
        async with whole(node, cluster) as (_, daemon):
            cluster.socket = daemon.kubelet.socket
            cluster.successor = cluster.socket.with_name("successor.new")
        assert cluster.socket.read_text() == "its own"

    run(scenario())
