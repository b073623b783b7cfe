"""Events on pods."""

from datetime import UTC, datetime

from hamikit.cluster import Unreachable
from hamikit.events import MESSAGE_MAX, Events
from hamikit.objects import Metadata, Pod

POD = Pod(Metadata("p", "ns", "u1"))


class Server:
    """Takes events, or fails them."""

    def __init__(self, fault=None):
        self.fault, self.bodies = fault, []

    def create(self, path, body):
        self.bodies.append((path, body))
        if self.fault:
            raise self.fault


def test_an_event_names_its_pod_and_its_source():
    """And is cut to what the API server takes."""
    server = Server()
    events = Events(server, "hami-x", "node-1", now=lambda: datetime(2026, 1, 2, tzinfo=UTC))
    events.warn(POD, "Reason", "m" * 2000)
    events.close()
    ((path, body),) = server.bodies
    assert path == "/api/v1/namespaces/ns/events"
    assert body["involvedObject"]["uid"] == "u1"
    assert body["source"] == {"component": "hami-x", "host": "node-1"}
    assert (len(body["message"]), body["lastTimestamp"]) == (MESSAGE_MAX, "2026-01-02T00:00:00Z")


def test_the_same_is_told_once():
    """Another text is news; who keeps account of time may tell it again."""
    server = Server()
    events = Events(server, "hami-x", "node-1")
    for message in ("one", "one", "two"):
        events.warn(POD, "Reason", message)
    events.warn(POD, "Reason", "one", again=True)
    events.close()
    assert [body["message"] for _, body in server.bodies] == ["one", "two", "one"]


def test_what_cannot_be_written_harms_nobody():
    """The next one is tried all the same."""
    server = Server(Unreachable("gone"))
    events = Events(server, "hami-x", "node-1")
    events.warn(POD, "Reason", "one")
    events.warn(POD, "Reason", "two")
    events.close()
    assert len(server.bodies) == 2
