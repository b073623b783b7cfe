"""What the node's object says about its cards."""

import threading

import pytest
from plugin_api import ApiServer

from hami_device_plugin.access import Access
from hami_device_plugin.announce import PAUSED_BY_US, Announcer, difference, wanted
from hami_device_plugin.stand import Stand
from hamikit import names
from hamikit.cluster import Unreachable
from hamikit.codec import RegisteredDevice

CARD = RegisteredDevice(id="GPU-a", count=10, devmem=1, devcore=100, health=True)
REGISTER = '[{"id":"GPU-a","count":10,"devmem":1,"devcore":100,"health":true}]'


LATE = Access("late", "cdi")


def announcer(server, devices=(CARD,), access=LATE, **more):
    """An announcer for n1."""
    stand = None if devices is None else Stand(devices)
    return Announcer(server.api(), "n1", lambda: stand, lambda _: access, **more)


def test_cards_and_late_binding_are_announced_once():
    """The second look finds nothing to change and writes nothing."""
    with ApiServer() as server:
        one = announcer(server)
        assert one.missing()
        one.step()
        one.step()
        assert server.annotations == {
            names.NODE_REGISTER: REGISTER,
            names.NODE_BINDING: "late",
            names.NODE_CARD_ACCESS: "cdi",
        }
        assert server.patches.qsize() == 1
        assert one.missing() is None


def test_without_cdi_the_reason_replaces_the_offer():
    """And comes off again with CDI."""
    with ApiServer() as server:
        announcer(server).step()
        announcer(server, access=Access(reason="enable_cdi=false")).step()
        assert server.annotations.keys().isdisjoint({names.NODE_BINDING, names.NODE_CARD_ACCESS})
        assert server.annotations[names.NODE_BINDING_REASON] == "enable_cdi=false"
        announcer(server).step()
        assert names.NODE_BINDING_REASON not in server.annotations


def test_the_runtime_is_told_to_the_question():
    """Whether CDI is on depends on the runtime's version."""
    asked = []

    def access(version):
        asked.append(version)
        return LATE

    with ApiServer(runtime="containerd://1.7.0") as server:
        Announcer(server.api(), "n1", Stand, access).step()
    assert asked == ["containerd://1.7.0"]


def test_a_node_keeps_its_cards_until_they_are_read():
    """A plugin that just started knows nothing better."""
    with ApiServer(annotations={names.NODE_REGISTER: REGISTER}) as server:
        one = announcer(server, devices=None)
        one.step()
        assert server.patches.qsize() == 0
        assert one.missing() == "the cards are not read yet"


def test_a_node_without_cards_has_no_annotation():
    """An empty list would be no valid annotation."""
    with ApiServer(annotations={names.NODE_REGISTER: REGISTER}) as server:
        announcer(server, devices=()).step()
        assert names.NODE_REGISTER not in server.annotations


def test_cards_that_cannot_be_read_are_a_reason():
    """A node without any says why; one whose cards are known says it by their health."""
    silent = wanted(Stand(fault="NVML does not start"), LATE, None)
    assert silent[names.NODE_BINDING] is None
    assert silent[names.NODE_BINDING_REASON] == "NVML does not start"
    assert wanted(Stand((CARD,), fault="gone"), LATE, None)[names.NODE_BINDING] == "late"


def test_scores_are_announced_and_taken_off():
    """With the feature, and without it."""
    with ApiServer() as server:
        stand = Stand((CARD,), scores="[]")
        Announcer(server.api(), "n1", lambda: stand, lambda _: LATE).step()
        assert server.annotations[names.NODE_SCORE] == "[]"
        announcer(server).step()
        assert names.NODE_SCORE not in server.annotations


@pytest.mark.parametrize(("present", "lifted"), [(PAUSED_BY_US, True), ("maintenance", False)])
def test_only_our_own_pause_is_lifted(present, lifted):
    """What an operator paused stays paused."""
    changes = difference({names.NODE_PAUSED: present}, wanted(Stand(), LATE, None))
    assert (names.NODE_PAUSED in changes) is lifted


def test_an_idle_node_is_not_asked_again():
    """A watch of it tells what changes; who waits for news has asked once."""
    asked, first = [], threading.Event()

    class Quiet:
        def get(self, path, kind):
            asked.append(path)
            first.set()
            return kind()

        def patch(self, path, body):
            asked.append(path)

    waits = []
    one = Announcer(Quiet(), "n1", lambda: None, lambda _: LATE)
    news = one._news.wait
    one._news.wait = lambda seconds: (waits.append(seconds), news(10))
    thread = threading.Thread(target=one.run)
    thread.start()
    assert first.wait(10)
    one.stop()
    thread.join(10)
    assert set(asked) == {"/api/v1/nodes/n1"}
    assert set(waits) <= {None}


def test_goes_on_after_a_failure_and_on_news():
    """An unreachable server is tried again; news are announced at once."""
    calls, seen = [], threading.Event()

    class Flaky:
        def get(self, path, kind):
            calls.append(path)
            if len(calls) == 2:
                seen.set()
            raise Unreachable("down")

    one = Announcer(Flaky(), "n1", Stand, lambda _: LATE)
    thread = threading.Thread(target=one.run)
    thread.start()
    while not calls:
        seen.wait(0.01)
    one.news()
    assert seen.wait(10)
    assert one.missing() == "node: down"
    one.stop()
    thread.join(10)
    assert not thread.is_alive()
