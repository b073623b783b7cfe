"""Whose processes they are, and their sums."""

import hashlib

from hami_monitor.attribution import HostUse, attribute, sight
from hami_monitor.cgroups import Owner
from hami_monitor.host import CardReading
from hami_monitor.occupants import Occupant
from hami_monitor.processes import Process
from hamikit.gpu import Card
from hamikit.objects import ContainerStatus, PodStatus


def container_id(uid, name):
    """As the pods of `make_pod` have it."""
    return hashlib.sha256(f"{uid}/{name}".encode()).hexdigest()


def process(pid, *owners):
    """A process in these containers, outermost first."""
    return Process(pid, pid, 1, "python", tuple(Owner(uid, cid) for uid, cid in owners))


def card(uuid, *occupants, known=True):
    """A card with these processes on it."""
    return CardReading(Card(uuid, 0, "A100", 1), occupants=tuple(occupants) if known else None)


def test_a_process_is_its_containers(make_pod):
    """By the container's id in the pod's status."""
    pod = make_pod("uid-a", "main", "side")
    inside = process(7, ("uid-a", container_id("uid-a", "side")))
    (found,) = attribute([card("GPU-a", Occupant(7, 5))], {7: inside}, {"uid-a": pod})
    assert (found.uuid, found.pod, found.container, found.in_pod) == ("GPU-a", pod, "side", "uid-a")


def test_an_id_that_the_status_does_not_name_yet_is_no_container(make_pod):
    """The status comes later than the first process."""
    inside = process(7, ("uid-a", "f" * 64))
    pods = {"uid-a": make_pod("uid-a", "main")}
    (found,) = attribute([card("GPU-a", Occupant(7, 5))], {7: inside}, pods)
    assert (found.pod, found.container) == (pods["uid-a"], "")


def test_ephemeral_containers_have_names_too(make_pod):
    """Somebody who debugs may use a card."""
    pod = make_pod("uid-a", "main")
    status = PodStatus(
        "Running", ephemeral_container_statuses=[ContainerStatus("debug", "cri-o://" + "d" * 64)]
    )
    pod = type(pod)(pod.metadata, pod.spec, status)
    (found,) = attribute(
        [card("GPU-a", Occupant(7, 5))], {7: process(7, ("uid-a", "d" * 64))}, {"uid-a": pod}
    )
    assert found.container == "debug"


def test_the_known_pod_of_nested_ones_counts(make_pod):
    """The outer pod is another cluster's; where none is known, the inner one is told."""
    pods = {"uid-a": make_pod("uid-a", "main")}
    owners = (("outer", "1" * 64), ("uid-a", container_id("uid-a", "main")))
    cards = [card("GPU-a", Occupant(7, 5))]
    (found,) = attribute(cards, {7: process(7, *owners)}, pods)
    assert (found.in_pod, found.container) == ("uid-a", "main")
    (found,) = attribute(cards, {7: process(7, *owners)}, {})
    assert (found.in_pod, found.pod) == ("uid-a", None)


def test_hosts_processes_and_the_gone():
    """A process in no pod is the host's; one that ended meanwhile is nobody's."""
    cards = [card("GPU-a", Occupant(7, 5), Occupant(8, 5))]
    (found,) = attribute(cards, {7: process(7)}, {})
    assert (found.occupant.pid, found.in_pod, found.pod) == (7, "", None)


def test_sums_by_container_and_card(make_pod):
    """Two processes on one card add up; the other card is apart; what is unknown makes no sum."""
    pod = make_pod("uid-a", "main")
    inside = ("uid-a", container_id("uid-a", "main"))
    cards = [
        card("GPU-a", Occupant(1, 10, 5), Occupant(2, 20, 7)),
        card("GPU-b", Occupant(1, 3, None), Occupant(2, None, 7)),
        card("GPU-c"),
        card("GPU-d", known=False),
    ]
    found = attribute(cards, {1: process(1, inside), 2: process(2, inside)}, {"uid-a": pod})
    seen = sight(cards, found)
    assert seen.of("uid-a", "main", "GPU-a") == HostUse(30, 12)
    assert seen.of("uid-a", "main", "GPU-b") == HostUse(None, None)
    assert seen.of("uid-a", "main", "GPU-c") == HostUse(0, 0)
    assert seen.of("uid-a", "main", "GPU-d") is None
