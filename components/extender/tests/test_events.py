"""Events leave in the background."""

import queue

import pytest

from hami_extender.events import EventSender
from hamikit.cluster import ApiError


class Api:
    """Takes events, or refuses them."""

    def __init__(self, error=None):
        self.error, self.seen = error, queue.Queue()

    def create(self, path, body):
        self.seen.put((path, body))
        if self.error:
            raise self.error
        return b""


def test_events_are_posted_in_their_namespace():
    """From a thread of its own."""
    api = Api()
    sender = EventSender(api)
    sender.start()
    sender.send("team", {"reason": "x"})
    assert api.seen.get(timeout=10) == ("/api/v1/namespaces/team/events", {"reason": "x"})


def test_a_refused_event_is_counted_and_dropped():
    """A namespace that is being deleted takes no events; nothing else suffers."""
    sender = EventSender(Api(ApiError(403, "Forbidden", "terminating")))
    sender.send("team", {})
    sender.step(0)
    assert sender.dropped == 1
    with pytest.raises(queue.Empty):
        sender.step(0)


def test_a_full_queue_never_blocks():
    """What does not fit is counted."""
    sender = EventSender(Api(), waiting=1)
    sender.send("team", {})
    sender.send("team", {})
    assert sender.dropped == 1
