"""Whether the runtime knows what we wrote."""

import asyncio

import pytest
from plugin_kit import FakeCluster, make_pod, run, whole
from plugin_process import until

from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.readers import HASTY_S, Readers


@pytest.fixture
def folder(tmp_path):
    """The runtime's folder."""
    return tmp_path


LONG_S = 60
"""More than any test takes."""


async def scene(folder, play, patient_s=LONG_S):
    """Readers and files in a running loop."""
    readers = Readers(asyncio.get_running_loop(), patient_s=patient_s)
    cdi = CdiFiles((folder,), folder, readers.expect)
    following = asyncio.create_task(readers.run())
    try:
        await play(readers, cdi)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def path(folder, name):
    """One of our files."""
    (found,) = folder.glob(f"*{name}.json")
    return found


async def patient(readers, cdi, folder):
    """Have the first file read, so that later ones are waited for."""
    cdi.write("c0", {"n": 0})
    path(folder, "c0").read_text()
    await readers.read(["c0"])


def test_waits_until_a_file_was_read_under_its_new_name(folder):
    """And not a moment longer; what was read before anybody waited counts as well."""

    async def play(readers, cdi):
        await patient(readers, cdi, folder)
        cdi.write("c1", {"n": 1})
        waiting = asyncio.create_task(readers.read(["c1"]))
        done, _ = await asyncio.wait([waiting], timeout=HASTY_S * 2)
        assert not done
        path(folder, "c1").read_text()
        await waiting
        assert readers._patience_s == LONG_S

    run(scene(folder, play))


def test_all_of_several_files(folder):
    """An init and an app container with the same ids have one each."""

    async def play(readers, cdi):
        await patient(readers, cdi, folder)
        cdi.write("c1", {"n": 1})
        cdi.write("c2", {"n": 2})
        waiting = asyncio.create_task(readers.read(["c1", "c2"]))
        path(folder, "c1").read_text()
        done, _ = await asyncio.wait([waiting], timeout=HASTY_S * 2)
        assert not done
        path(folder, "c2").read_text()
        await waiting
        assert readers._patience_s == LONG_S

    run(scene(folder, play))


def test_our_own_writing_is_no_reading(folder):
    """Nor is a look at its attributes, as the sweep takes one."""

    async def play(readers, cdi):
        await patient(readers, cdi, folder)
        cdi.write("c1", {"n": 1})
        cdi.ours()
        await readers.read(["c1"])
        assert readers._patience_s == HASTY_S

    run(scene(folder, play, patient_s=HASTY_S * 2))


def test_a_runtime_that_does_not_read_is_not_waited_for_long(folder):
    """Until it reads again, however late."""

    async def play(readers, cdi):
        cdi.write("c1", {"n": 1})
        await readers.read(["c1"])
        assert readers._patience_s == HASTY_S
        path(folder, "c1").read_text()
        await patient(readers, cdi, folder)
        assert readers._patience_s == LONG_S

    run(scene(folder, play))


def test_nobody_waits_for_a_file_that_is_gone(folder):
    """It was replaced, or swept, before anybody read it."""

    async def play(readers, cdi):
        cdi.write("c1", {"n": 1})
        cdi.remove("c1")
        await readers.read(["c1"])
        assert readers._patience_s == HASTY_S
        await patient(readers, cdi, folder)
        cdi.write("c1", {"n": 1})
        waiting = asyncio.create_task(readers.read(["c1"]))
        cdi.remove("c1")
        await waiting
        assert readers._patience_s == LONG_S
        cdi.write("c2", {"n": 1})
        cdi.write("c2", {"n": 2})
        path(folder, "c2").read_text()
        await readers.read(["c2"])
        assert readers._patience_s == LONG_S

    run(scene(folder, play))


def test_without_watches_it_pauses(folder):
    """A node has only so many of them, and no container starts the sooner for an error."""

    async def play(readers, cdi):
        readers._patience_s = HASTY_S * 2
        readers.expect("c1", folder / "not-there")
        await readers.read(["c1"])
        assert readers._patience_s == HASTY_S
        assert readers._unread == {}

    run(scene(folder, play))


def test_who_is_late_at_our_end_writes_all_the_same(folder):
    """A container that starts while the plugin ends has its specification."""

    async def play(readers, cdi):
        ending = asyncio.create_task(readers.run())
        await asyncio.sleep(0)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        cdi.write("c1", {"n": 1})
        assert path(folder, "c1").exists()

    async def alone():
        readers = Readers(asyncio.get_running_loop(), patient_s=HASTY_S)
        await play(readers, CdiFiles((folder,), folder, readers.expect))

    run(alone())


def test_a_container_starts_once_its_specification_was_read(node):
    """Not before: the runtime would not know the device that it is told."""

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-a,NVIDIA,100,1:;")])
        async with whole(node, cluster) as (kubelet, daemon):
            daemon.readers._patience_s = LONG_S
            await kubelet.admit("u1", "c", ["slot-0000"])
            starting = asyncio.create_task(kubelet.start_container(["slot-0000"]))
            done, _ = await asyncio.wait([starting], timeout=HASTY_S * 10)
            assert not done
            await until(node.specs, "the specification, which this reads")
            await starting

    run(scenario())
