"""Behaviour of hami_webhook.cluster_side: events about the configuration."""

import queue
from datetime import UTC, datetime

import pytest

from hami_webhook.cluster_side import Announcer
from hami_webhook.config import parse

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


class FakeApi:
    """Keeps what it is given."""

    def __init__(self):
        self.created = []

    def create(self, path, body):
        self.created.append((path, body))
        return b"{}"


@pytest.fixture
def announcer():
    """One with the shipped names."""
    return Announcer(parse([], {"POD_NAMESPACE": "gpu"}), now=lambda: NOW)


def test_a_fault_is_told_on_the_config_map(announcer):
    """Where whoever changed it looks first."""
    api = FakeApi()
    announcer.report("line 3: nvidia.defaultCores: 101 must be ...")
    announcer.send(api)
    [(path, event)] = api.created
    assert path == "/api/v1/namespaces/gpu/events"
    assert event["involvedObject"]["name"] == "hami-device-config"
    assert (event["type"], event["reason"]) == ("Warning", "DeviceConfigRefused")
    assert "last good configuration: line 3" in event["message"]
    assert event["lastTimestamp"] == "2026-11-23T08:00:00Z"


def test_the_end_of_a_fault_is_told_too(announcer):
    """So that the warning is not the last word."""
    api = FakeApi()
    announcer.report("")
    announcer.send(api)
    assert (api.created[0][1]["type"], api.created[0][1]["reason"]) == (
        "Normal",
        "DeviceConfigLoaded",
    )


def test_a_message_fits_an_event(announcer):
    """The API server refuses longer ones than 1024 characters."""
    api = FakeApi()
    announcer.report("x" * 5000)
    announcer.send(api)
    assert len(api.created[0][1]["message"]) <= 1024


def test_nobody_waits_for_the_api_server(announcer):
    """What cannot be kept is dropped."""
    for _ in range(100):
        announcer.report("x")
    api = FakeApi()
    for _ in range(16):
        announcer.send(api, timeout=0)
    with pytest.raises(queue.Empty):
        announcer.send(api, timeout=0)
