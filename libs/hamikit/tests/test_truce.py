"""Whoever is asked lets go of NVML, says so, and comes back afterwards."""

import json
import threading

import pytest

from hamikit import names
from hamikit.cluster import Unreachable
from hamikit.objects import Metadata, Node
from hamikit.truce import LONGEST_S, Truce

KEY = names.NODE_MIG_PAUSE_MONITOR
DEADLINE_S = 60


class Api:
    """Takes patches; the first `faults` of them fail."""

    def __init__(self, faults=0):
        self.said, self.faults, self.heard = [], faults, threading.Semaphore(0)

    def patch(self, path, body):
        assert path == "/api/v1/nodes/n"
        if self.faults:
            self.faults -= 1
            raise Unreachable("no answer")
        self.said.append(body["metadata"]["annotations"])
        self.heard.release()


def node(token=None, **annotations):
    """A node on which this pause is asked for."""
    pause = {} if token is None else {names.NODE_MIG_PAUSE: json.dumps({"token": token})}
    return Node(Metadata("n", annotations=pause | annotations))


def keeping(truce):
    """A thread that keeps the pause; whether NVML was closed, and its end."""
    closed, stopping = threading.Event(), threading.Event()
    thread = threading.Thread(target=truce.keep, args=(closed.set, stopping), daemon=True)
    thread.start()
    return closed, stopping, thread


@pytest.mark.parametrize("faults", [0, 1])
def test_a_pause_is_kept_from_its_token_to_its_end(faults):
    """NVML is closed before it is said; a patch that fails is repeated."""
    truce, api = Truce(KEY), Api(faults)
    truce.connect(api, "n")
    truce.observe(node("t1"))
    assert truce.asked
    closed, _, thread = keeping(truce)
    assert api.heard.acquire(timeout=DEADLINE_S)
    assert closed.is_set()
    assert api.said == [{KEY: "t1"}]
    truce.observe(node("t1", **{KEY: "t1"}))
    truce.observe(node())
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert api.said == [{KEY: "t1"}, {KEY: None}]
    assert not truce.asked


def test_a_pause_that_lasts_too_long_is_over():
    """Who asked for it has died; the cards are looked at again, and a new pause is one again."""
    clock, api = [0.0], Api()
    truce = Truce(KEY, now=lambda: clock[0])
    truce.connect(api, "n")
    truce.observe(node("t1"))
    _, _, thread = keeping(truce)
    assert api.heard.acquire(timeout=DEADLINE_S)
    clock[0] = LONGEST_S
    truce.observe(node("t1", **{KEY: "t1"}))
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert api.said == [{KEY: "t1"}, {KEY: None}]
    assert not truce.asked
    truce.observe(node("t2"))
    assert truce.asked


def test_another_token_is_another_pause():
    """It is said anew: the one before may have been another's."""
    truce, api = Truce(KEY), Api()
    truce.connect(api, "n")
    truce.observe(node("t1", **{KEY: "t0"}))
    _, stopping, thread = keeping(truce)
    assert api.heard.acquire(timeout=DEADLINE_S)
    truce.observe(node("t2", **{KEY: "t1"}))
    assert api.heard.acquire(timeout=DEADLINE_S)
    assert api.said == [{KEY: "t1"}, {KEY: "t2"}]
    stopping.set()
    truce.observe(node())
    thread.join(DEADLINE_S)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": 7}', "{}", '{"x":' + "[" * 100_000])
def test_what_is_no_pause_is_none(text):
    """And then keeping it is nothing."""
    truce = Truce(KEY)
    truce.observe(Node(Metadata("n", annotations={names.NODE_MIG_PAUSE: text})))
    truce.keep(lambda: pytest.fail("NVML was closed"), threading.Event())


def test_who_is_to_end_does_not_wait_for_the_end_of_a_pause():
    """A process that is told to stop stops."""
    truce = Truce(KEY)
    truce.connect(Api(), "n")
    truce.observe(node("t1"))
    closed, stopping, thread = keeping(truce)
    assert closed.wait(DEADLINE_S)
    stopping.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
