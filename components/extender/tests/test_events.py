"""Events leave in the background."""

import queue

import pytest

from hami_extender.events import EventSender
from hamikit.cluster import ApiError, Unreachable


class Api:
    """Takes events, or refuses them: all, or as many as `times` says."""

    def __init__(self, error=None, times=1000):
        self.error, self.times, self.seen = error, times, queue.Queue()

    def create(self, path, body):
        self.seen.put((path, body))
        if self.error and self.seen.qsize() <= self.times:
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
    api = Api(ApiError(403, "Forbidden", "terminating"))
    sender = EventSender(api)
    sender.send("team", {})
    sender.step(0)
    assert (api.seen.qsize(), sender.dropped) == (1, 1)
    with pytest.raises(queue.Empty):
        sender.step(0)


BLIPS = [Unreachable("restarts"), ApiError(429, "TooMany", ""), ApiError(500, "Internal", "")]


@pytest.mark.parametrize("blip", BLIPS, ids=str)
def test_a_moment_without_api_server_loses_no_event(blip):
    """A waiting pod is told its reason only once, so it is tried again."""
    api, pauses = Api(blip, times=3), []
    sender = EventSender(api, pause=pauses.append)
    sender.send("team", {"reason": "x"})
    sender.step(0)
    assert (api.seen.qsize(), pauses, sender.dropped) == (4, [0.5, 2.0, 8.0], 0)


def test_an_api_server_that_stays_away_holds_up_the_others_for_a_while_only():
    """Then the event is counted and dropped."""
    api = Api(Unreachable("gone"))
    sender = EventSender(api, pause=lambda _: None)
    sender.send("team", {})
    sender.step(0)
    assert (api.seen.qsize(), sender.dropped) == (4, 1)


def test_a_full_queue_never_blocks():
    """What does not fit is counted."""
    sender = EventSender(Api(), waiting=1)
    sender.send("team", {})
    sender.send("team", {})
    assert sender.dropped == 1
