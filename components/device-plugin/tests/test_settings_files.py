"""The operator's files, read again whenever they change."""

import asyncio
from functools import partial

import pytest

from hami_device_plugin.settings import Settings, changes
from hami_device_plugin.settings_files import SettingsFiles, load
from hamikit.deviceconfig import ConfigError


@pytest.fixture
def paths(tmp_path):
    """The two files; the one for single nodes is not there yet."""
    cluster = tmp_path / "device-config.yaml"
    cluster.write_text("nvidia: {deviceSplitCount: 4}")
    return cluster, tmp_path / "config.json"


def files(paths):
    """A look-out over them."""
    names = [str(path) for path in paths]
    return SettingsFiles(partial(load, *names, "n1"), *names)


def test_what_changes_is_read_again(paths):
    """A new content, a file that appears, one that goes; nothing when nothing happened."""
    found, (cluster, node) = files(paths), paths
    assert found.changed() is None
    cluster.write_text("nvidia: {deviceSplitCount: 50}")
    assert found.changed() == Settings(split_count=50)
    node.write_text('{"nodeconfig": [{"name": "n1", "filterdevices": {"index": [1]}}]}')
    assert found.changed() == Settings(split_count=50, hidden_indexes=frozenset({1}))
    node.unlink()
    assert found.changed() == Settings(split_count=50)
    assert found.changed() is None


def test_a_mistake_leaves_the_older_settings(paths):
    """It is said once, and forgotten with the mistake."""
    found, (cluster, _) = files(paths), paths
    cluster.write_text("nvidia: {deviceSplitCount: many}")
    assert found.changed() is None
    assert "devicesplitcount" in found.fault
    cluster.write_text("nvidia: {deviceSplitCount: 12}")
    assert found.changed() == Settings(split_count=12)
    assert found.fault is None


def test_a_file_of_single_nodes_that_is_no_file_is_a_mistake(paths):
    """Unlike one that is not there."""
    paths[1].mkdir()
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(str(paths[0]), str(paths[1]), "n1")


def test_news_are_adopted(paths, monkeypatch):
    """By the running program."""
    monkeypatch.setattr("hami_device_plugin.settings_files.EVERY_S", 0.01)
    adopted = []

    async def scenario():
        found, heard = files(paths), asyncio.Event()
        loop = asyncio.get_running_loop()

        def adopt(settings):
            adopted.append(settings)
            loop.call_soon_threadsafe(heard.set)

        task = asyncio.create_task(found.follow(adopt))
        paths[0].write_text("nvidia: {deviceMemoryScaling: 1.25}")
        await asyncio.wait_for(heard.wait(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert adopted == [Settings(memory_scaling=1.25)]


def test_changes_for_the_log():
    """Old and new, only of what differs."""
    assert changes(Settings(), Settings(split_count=3)) == {"split_count": "10 -> 3"}
