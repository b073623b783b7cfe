"""Pods that were refused too early are looked at again."""

import pytest
from extender_kit import container, device, make_node, make_pod

from hami_extender.selection import Policies, Selector
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hami_extender.wake import GRACE_S, WOKEN_AT_ONCE, Waker
from hami_extender.wire import FilterArgs
from hamikit.cluster import ApiError
from hamikit.codec import GrantedDevice
from hamikit.devices import NVIDIA
from hamikit.informer import Change


class World:
    """One full node, a waker on a clock of ours; `woken` has the paths that were patched."""

    def __init__(self):
        self.time, self.woken, self.error = 0.0, [], None
        self.snapshot = Snapshot(NVIDIA, now=lambda: self.time)
        self.snapshot.on_node(Change(None, make_node("n", device("a"))))
        self.waker = Waker(self.snapshot, self, now=lambda: self.time)
        self.selector = Selector(
            self.snapshot, Policies(), missing=lambda: "", refused=self.waker.refused
        )
        slots = ((GrantedDevice("a", "NVIDIA", 8000, 30),),)
        self.snapshot.hold(Kind.GRANT, make_pod("holder"), "n", slots)

    def request(self, method, path, *, body, content_type):
        """The API server."""
        if self.error:
            raise self.error
        assert (method, content_type) == ("PATCH", "application/strategic-merge-patch+json")
        self.woken.append((path, body["status"]["conditions"][0]["type"], body["metadata"]))
        return b""

    def ask(self, name):
        """kube-scheduler asks about a pod that exists."""
        pod = make_pod(name, container(gpu=1, mem=2000))
        self.snapshot.on_pod(Change(None, pod))
        return self.selector.filter(FilterArgs(pod, ["n"]))

    def free(self):
        """Our watch says that the holder is gone."""
        with self.snapshot.lock:
            self.snapshot.ledger.release("uid-holder")

    def pass_time(self, seconds=GRACE_S):
        """Look, let time pass, look again."""
        self.waker.look()
        self.time += seconds
        self.waker.look()


def test_a_pod_that_was_asked_about_too_early_is_woken_once():
    """kube-scheduler parked it a moment before our watch told us of the room."""
    world = World()
    world.ask("p")
    world.free()
    world.pass_time()
    world.pass_time()
    path = "/api/v1/namespaces/default/pods/p/status"
    assert world.woken == [(path, "hami.io/RoomFreed", {"uid": "uid-p"})]


def test_the_end_of_a_claim_is_room_too():
    """The pod that was to be bound never came: whoever waits behind its claim is woken."""
    world = World()
    world.free()
    slots = ((GrantedDevice("a", "NVIDIA", 8000, 0),),)
    world.snapshot.claim(make_pod("never"), "n", slots, 5)
    world.ask("p")
    world.pass_time()
    assert world.woken == []
    world.time += 5
    world.pass_time()
    assert len(world.woken) == 1


def test_a_pod_that_is_asked_about_again_needs_no_waking():
    """It was placed, or it holds a claim and will be."""
    world = World()
    world.ask("p")
    world.free()
    world.waker.look()
    assert world.ask("p").node_names == ["n"]
    world.pass_time()
    assert world.woken == []


@pytest.mark.parametrize("change", ["none", "gone"])
def test_no_room_or_no_pod_no_waking(change):
    """Nothing was freed, or the pod itself went."""
    world = World()
    world.ask("p")
    if change == "gone":
        world.free()
        world.snapshot.on_pod(Change(make_pod("p"), None))
    world.pass_time()
    assert world.woken == []


def test_not_before_kube_scheduler_had_its_chance():
    """Within the grace period it comes by itself."""
    world = World()
    world.ask("p")
    world.free()
    world.pass_time(GRACE_S / 2)
    assert world.woken == []


def test_a_few_at_a_time_and_the_others_later():
    """A crowd does not become a storm of writes, and nobody is forgotten."""
    world = World()
    for number in range(WOKEN_AT_ONCE + 3):
        world.ask(f"p{number}")
    world.free()
    world.pass_time()
    assert len(world.woken) == WOKEN_AT_ONCE
    world.waker.look()
    assert len(world.woken) == WOKEN_AT_ONCE + 3


def test_an_api_server_that_refuses_harms_nobody():
    """The look goes on."""
    world = World()
    world.error = ApiError(500, "InternalError", "no")
    world.ask("p")
    world.free()
    world.pass_time()
    assert world.woken == []
