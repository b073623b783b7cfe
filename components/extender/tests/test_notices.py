"""What a waiting pod is told."""

from datetime import UTC, datetime

import pytest
from extender_kit import container, device, make_node, make_pod

from hami_extender.notices import MESSAGE_LIMIT, Notices
from hami_extender.selection import Policies, Selector
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hami_extender.wire import FilterArgs
from hamikit.codec import GrantedDevice
from hamikit.devices import NVIDIA
from hamikit.informer import Change


class World:
    """A selector whose refusals are explained; `sent` has the events."""

    def __init__(self, *nodes):
        self.sent = []
        self.snapshot = Snapshot(NVIDIA)
        for node in nodes:
            self.snapshot.on_node(Change(None, node))
        self.notices = Notices(
            self.snapshot,
            lambda namespace, event: self.sent.append((namespace, event)),
            component="hami-scheduler",
            utcnow=lambda: datetime(2026, 8, 21, 6, 20, 39, tzinfo=UTC),
        )
        self.selector = Selector(
            self.snapshot, Policies(), missing=lambda: "", refused=self.notices.refused
        )

    def filter(self, pod):
        """Ask about all nodes."""
        return self.selector.filter(FilterArgs(pod, list(self.snapshot.ledger.nodes)))

    def use(self, node, uuid, memory):
        """Somebody's grant."""
        slots = ((GrantedDevice(uuid, "NVIDIA", memory, 30),),)
        self.snapshot.hold(Kind.GRANT, make_pod(f"on-{uuid}"), node, slots)


def test_the_event():
    """Per card what is free and what was asked, on the pod, by HAMi's reason and first words."""
    world = World(
        make_node("small", device("GPU-s", devmem=1000)),
        make_node("n", device("GPU-a"), device("GPU-b", 1, health=False)),
        make_node("old", device("GPU-o", devmem=90000), NODE_BINDING="lock"),
    )
    world.use("n", "GPU-a", 7000)
    world.filter(make_pod("p", container("plain"), container("main", gpu=1, mem=3000, cores=30)))
    ((namespace, event),) = world.sent
    assert namespace == "default"
    assert event["involvedObject"]["uid"] == "uid-p"
    assert (event["reason"], event["type"]) == ("FilteringFailed", "Warning")
    assert event["source"] == {"component": "hami-scheduler"}
    assert event["firstTimestamp"] == "2026-08-21T06:20:39Z"
    assert event["message"] == (
        "no available node, 3 nodes do not meet; "
        "n: container main asks for 1 x (3000 MiB, 30% cores): "
        "GPU-a CardInsufficientMemory (free 1000 of 8000 MiB, 70% cores, 9 slots), "
        "1 x CardNotHealth; "
        "small: container main asks for 1 x (3000 MiB, 30% cores): "
        "GPU-s CardInsufficientMemory (free 1000 of 1000 MiB, 100% cores, 10 slots); "
        "old: NodeBindingUnsupported (the node speaks HAMi's lock protocol, which is switched off "
        "(--lock-protocol))"
    )


def test_why_a_node_offers_no_late_binding():
    """The plugin's own words reach the pod: a user cannot guess what its node lacks."""
    said = "CDI is switched off on this node"
    world = World(make_node("n", device("a"), NODE_BINDING="", NODE_BINDING_REASON=said))
    world.filter(make_pod("p", container("main", gpu=1, mem=3000)))
    ((_, event),) = world.sent
    assert event["message"].endswith(f"n: NodeBindingUnsupported ({said})")


def test_once_per_change_of_reason():
    """Retries say nothing new; another reason does, and so does another pod."""
    world = World(make_node("n", device("a", count=2)))
    pod = make_pod("p", container(gpu=1, mem=2000))
    world.use("n", "a", 7000)
    world.filter(pod)
    world.filter(pod)
    assert len(world.sent) == 1
    world.snapshot.hold(
        Kind.GRANT, make_pod("other"), "n", ((GrantedDevice("a", "NVIDIA", 1, 0),),)
    )
    world.filter(pod)
    assert len(world.sent) == 2
    world.filter(make_pod("q"))
    assert len(world.sent) == 3


def test_percent_and_too_few_cards():
    """Other forms of requests, and a reason without cards."""
    world = World(make_node("n", device("a")))
    world.filter(make_pod("p", container(gpu=2, percent=50)))
    assert world.sent[0][1]["message"].endswith(
        "n: container main asks for 2 x (50% memory, 0% cores), the node has 1: "
        "NodeInsufficientDevice"
    )
    world = World(make_node("n", device("a"), device("b", 1)))
    world.use("n", "a", 5000)
    world.filter(make_pod("p", container(gpu=2, percent=50)))
    assert world.sent[0][1]["message"].endswith(
        "a CardInsufficientMemory (free 3000 of 8000 MiB, asked 4000, 70% cores, 9 slots), "
        "1 would fit"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NODE_PAUSED": "plugin upgrade"}, "n: NodePaused (plugin upgrade)"),
        ({"NODE_REGISTER": "oops"}, "n: NodeRegisterUnreadable (register annotation is not JSON"),
    ],
)
def test_a_node_says_more_where_it_can(settings, said):
    """The reason of a pause, the fault of an annotation."""
    world = World(make_node("n", device("a"), **settings))
    world.filter(make_pod("p"))
    assert said in world.sent[0][1]["message"]


def test_a_long_text_is_cut():
    """The API server refuses more than 1 KiB."""
    cards = [device(f"GPU-{i:036d}", i, devmem=1) for i in range(16)]
    world = World(make_node("n", *cards))
    world.filter(make_pod("p"))
    message = world.sent[0][1]["message"]
    assert len(message) == MESSAGE_LIMIT
    assert message.endswith("...")


def test_memory_of_told_pods_is_bounded(monkeypatch):
    """Pods that are long gone are forgotten."""
    monkeypatch.setattr("hami_extender.notices.PODS_KEPT", 2)
    world = World(make_node("n", device("a", devmem=1)))
    for name in ("p", "q", "r", "p"):
        world.filter(make_pod(name))
    assert len(world.sent) == 4
