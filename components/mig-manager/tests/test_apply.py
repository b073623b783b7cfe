"""A node comes to what its pods need, whatever happens on the way."""

import pynvml
import pytest
from mig_world import GPU, Crash, World, spot

from hami_mig_manager import reasons
from hami_mig_manager.journal import decode_journal
from hami_mig_manager.view import place
from hamikit.cluster import ApiError
from hamikit.mig import decode_blocked

ONE, TWO, THREE = spot("1g.5gb", 6), spot("2g.10gb", 0), spot("3g.20gb", 4)


def settled(world, manager=None):
    """Let a manager work until it has nothing left to do."""
    manager = manager or world.manager()
    manager.settle()
    return manager


def blocked(world):
    """What stands on the node: place -> reason."""
    return {place(b): b.reason for b in decode_blocked(world.annotations.get("blocked") or "")}


def test_a_pod_gets_its_instances():
    """All of them, recorded at once, each at its reserved place; and then there is rest."""
    world = World()
    world.bind("a", ONE, TWO)
    manager = settled(world)
    assert world.uuids("a") == [world.there()[ONE].uuid, world.there()[TWO].uuid]
    assert world.claims["a"].version == "v'"
    assert [e.pod_uid for e in decode_journal(world.annotations["journal"])] == ["a", "a"]
    calls = world.calls
    settled(world, manager)
    assert world.calls == calls + 2  # one look at each side


def test_one_instance_serves_containers_that_follow_each_other():
    """An init container's instance may be named again by an app container of the same pod."""
    world = World()
    world.bind("a", ONE, ONE)
    settled(world)
    assert len(set(world.uuids("a"))) == len(world.there()) == 1


def test_what_nobody_needs_goes_after_the_grace_period():
    """Not before, and its entry with it."""
    world = World()
    world.bind("a", ONE)
    manager = settled(world, world.manager(grace_s=30))
    world.gone("a")
    assert manager.settle() == world.now + 30
    world.now += 29
    manager.settle()
    assert ONE in world.there()
    world.now += 1
    manager.settle()
    assert world.there() == {}
    assert world.annotations["journal"] is None


def test_the_grace_period_outlives_a_restart():
    """It is counted from when the instance was last needed, not from our start."""
    world = World()
    world.bind("a", ONE)
    settled(world)
    world.gone("a")
    settled(world)
    world.now += 30
    settled(world)
    assert world.there() == {}


def test_a_clock_that_was_set_back_keeps_nothing_for_ever():
    """Neither an instance that nobody needs, nor a placement where nothing could be made."""
    world = World(faults={"create": [pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES]})
    manager = world.manager()
    world.bind("refused", spot("2g.10gb", 0))
    settled(world, manager)
    world.gone("refused")
    world.bind("a", spot("1g.5gb", 6))
    settled(world, manager)
    world.gone("a")
    settled(world, manager)
    assert "since" in (world.annotations["blocked"] or "")
    world.now -= 900
    settled(world, manager)
    assert world.annotations["blocked"] is None
    world.now += 31
    settled(world, manager)
    assert world.there() == {}


def test_a_place_that_is_needed_does_not_wait_for_the_grace_period():
    """Another profile on the same slices."""
    world = World()
    world.bind("a", ONE)
    manager = settled(world)
    world.gone("a")
    world.bind("b", THREE)
    settled(world, manager)
    assert list(world.there()) == [THREE]
    assert world.uuids("b") == [world.there()[THREE].uuid]


def test_an_instance_is_used_again_as_it_is():
    """By the next pod with the same place; nothing is made or destroyed."""
    world = World()
    world.bind("a", ONE)
    manager = settled(world)
    uuid = world.uuids("a")
    world.gone("a")
    world.bind("b", ONE)
    settled(world, manager)
    assert world.uuids("b") == uuid
    assert [what for what, _ in world.heard.log] == ["made"]


@pytest.mark.parametrize("how", ["process", "container", "terminating pod", "unreadable pod"])
def test_what_is_in_use_stays(how):
    """A process on it, a container of a pod that is gone, a pod that is ending; or who knows."""
    world = World()
    world.bind("a", ONE)
    settled(world)
    if how == "process":
        world.using.update(world.uuids("a"))
    elif how == "container":
        world.lingering.add("a")
    if how == "terminating pod":
        world.end("a")
    else:
        world.gone("a")
    if how == "unreadable pod":
        world.bind("x")
        world.claims["x"] = world.claims["x"].__class__("x", "ns/x", allocations=None)
    for _ in range(5):
        settled(world)  # each with an empty memory
        world.now += 100
    assert ONE in world.there()


def test_the_grace_period_begins_when_the_last_process_is_gone():
    """Not when its pod went."""
    world = World()
    world.bind("a", ONE)
    settled(world)
    world.using.update(world.uuids("a"))
    world.gone("a")
    settled(world)
    world.now += 100
    world.using.clear()
    settled(world)
    assert ONE in world.there()
    world.now += 30
    settled(world)
    assert world.there() == {}


def test_hand_made_instances_are_told_to_the_scheduler_and_left_alone():
    """Also where a pod is to have the place: then the pod goes."""
    world = World()
    world.by_hand(THREE)
    manager = settled(world)
    assert blocked(world) == {THREE: reasons.MADE_BY_HAND}
    world.bind("a", ONE)
    settled(world, manager)
    assert world.evictions == [("a", reasons.PLACEMENT_TAKEN)]
    assert list(world.there()) == [THREE]


def test_a_hand_made_instance_at_the_very_place_is_not_ours():
    """Somebody was quicker, between our look and our attempt."""
    world = World()
    world.bind("a", ONE)
    manager = world.manager()
    create = world.create

    def late(where):
        world.by_hand(where)
        create(where)

    world.create = late
    settled(world, manager)
    world.now += 100
    settled(world, manager)
    assert [uid for uid, _ in world.evictions] == ["a"]
    assert world.uuids("a") == [None]
    assert ONE in world.there()


def test_an_instance_made_by_hand_in_place_of_ours_is_not_ours():
    """Its UUID is another than the journal's."""
    world = World()
    world.bind("a", ONE)
    settled(world)
    world.gone("a")
    settled(world)
    world._remove(ONE)
    world.by_hand(ONE)
    world.now += 100
    settled(world)
    assert ONE in world.there()


def test_a_lost_journal_comes_back_from_the_pods():
    """What a pod's record names is ours."""
    world = World()
    world.bind("a", ONE)
    settled(world)
    world.annotations.clear()
    settled(world)
    assert [e.spot for e in decode_journal(world.annotations["journal"])] == [ONE]
    assert blocked(world) == {}
    world.gone("a")
    settled(world)
    world.now += 30
    settled(world)
    assert world.there() == {}


def test_a_journal_that_cannot_be_read_is_written_anew():
    """What a pod's record names is in it; nobody finds the garbage at the next look again."""
    world = World()
    world.bind("a", ONE)
    settled(world)
    for held in (True, False, False):
        world.annotations["journal"] = "[{"
        settled(world)
        entries = decode_journal(world.annotations["journal"] or "")
        assert [entry.spot for entry in entries] == ([ONE] if held else [])
        world.gone("a")
    assert ONE in world.there()


def test_after_a_reset_of_the_card_instances_are_made_again():
    """At their places; the pods are told the new ids."""
    world = World()
    world.bind("a", ONE)
    settled(world)
    before = world.uuids("a")
    world._remove(ONE)
    settled(world)
    assert world.uuids("a") == [world.there()[ONE].uuid] != before


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES, reasons.INSUFFICIENT),
        (pynvml.NVML_ERROR_IN_USE, reasons.IN_USE),
        (pynvml.NVML_ERROR_RESET_REQUIRED, reasons.RESET_REQUIRED),
        (pynvml.NVML_ERROR_GPU_IS_LOST, reasons.CARD_MISSING),
        (pynvml.NVML_ERROR_NO_PERMISSION, reasons.NO_PERMISSION),
    ],
)
def test_what_cannot_succeed_is_told_and_the_pod_goes(code, reason):
    """The placement is blocked for a while, for whoever is bound there meanwhile too."""
    world = World()
    world.faults["create"] = [code]
    world.bind("a", ONE)
    settled(world)
    assert world.evictions == [("a", reason)]
    assert blocked(world) == {ONE: reason}
    assert world.there() == {}
    world.gone("a")
    world.bind("b", ONE)
    settled(world)
    assert world.evictions == [("a", reason), ("b", reason)]
    world.gone("b")
    world.now += 300
    settled(world)
    assert blocked(world) == {}


def test_what_may_succeed_is_tried_again():
    """With pauses that grow; then it is there."""
    world = World()
    world.faults["create"] = [pynvml.NVML_ERROR_TIMEOUT, pynvml.NVML_ERROR_UNKNOWN]
    world.bind("a", ONE)
    manager = world.manager()
    begin = world.now
    while (again := manager.settle()) is not None and world.uuids("a") == [None]:
        world.now = again
    assert world.now == pytest.approx(begin + 0.2 + 0.5)
    assert world.uuids("a") == [world.there()[ONE].uuid]
    assert world.evictions == []


def test_a_pod_is_told_of_all_its_instances_or_of_none():
    """One is there, the other may come yet."""
    world = World()
    world.bind("a", ONE, TWO)
    world.faults["create"] = [pynvml.NVML_ERROR_TIMEOUT]
    manager = world.manager()
    world.now = manager.settle()
    assert len(world.there()) == 1
    assert world.uuids("a") == [None, None]
    manager.settle()
    assert world.uuids("a") == [world.there()[ONE].uuid, world.there()[TWO].uuid]


def test_what_is_left_of_an_attempt_is_finished():
    """A GPU instance without its compute instance, which could not be taken back, is ours."""
    world = World()
    world.faults |= {"compute": [pynvml.NVML_ERROR_TIMEOUT] * 2, "undo": [1]}
    world.bind("a", ONE)
    manager = world.manager()
    for _ in range(2):
        world.now = manager.settle()
        assert world.uuids("a") == [None]
    manager.settle()
    assert world.uuids("a") == [world.there()[ONE].uuid]
    assert world.evictions == []


def test_what_somebody_uses_at_the_place_of_an_intent_is_not_ours():
    """Nobody has been told of an instance that was made for an intent."""
    world = World()
    world.bind("a", ONE)
    world.dies_at = world.calls + 5
    with pytest.raises(Crash):
        settled(world)
    assert decode_journal(world.annotations["journal"])
    world.by_hand(ONE)
    world.using.add(world.there()[ONE].uuid)
    settled(world)
    assert world.uuids("a") == [None]
    assert [uid for uid, _ in world.evictions] == ["a"]


def test_what_keeps_failing_is_given_up():
    """Never a stuck pod."""
    world = World()
    world.faults["compute"] = [pynvml.NVML_ERROR_UNKNOWN] * 6
    world.bind("a", ONE)
    manager = world.manager()
    while (again := manager.settle()) is not None and not world.evictions:
        world.now = again
    assert world.evictions == [("a", reasons.DRIVER_ERROR)]
    assert world.now < 1000 + 10
    assert blocked(world) == {ONE: reasons.DRIVER_ERROR}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"enabled": False, "pending": False}, reasons.MIG_OFF),
        ({"enabled": False, "pending": True}, reasons.RESET_REQUIRED),
        ({"profiles": ()}, reasons.NO_SUCH_PROFILE),
    ],
)
def test_a_card_that_cannot_have_it(change, reason):
    """Is known without an attempt."""
    world = World()
    world.cards[GPU] = world.cards[GPU].__class__(
        **{"uuid": GPU, "profiles": world.cards[GPU].profiles, **change}
    )
    world.bind("a", ONE)
    settled(world)
    assert world.evictions == [("a", reason)]


def test_an_illegal_place_and_a_missing_card():
    """Whoever wrote the reservation was mistaken, or the card has been taken out."""
    world = World()
    world.bind("a", spot("2g.10gb", 1))
    world.bind("b", spot("1g.5gb", 0, card="GPU-gone"))
    settled(world)
    assert sorted(world.evictions) == [
        ("a", reasons.NO_SUCH_PLACEMENT),
        ("b", reasons.CARD_MISSING),
    ]


def test_a_pod_waits_for_another_that_lets_go_but_not_for_ever():
    """What still runs on the place keeps it; after a minute the new pod goes elsewhere."""
    world = World()
    world.bind("a", ONE)
    settled(world)
    world.using.update(world.uuids("a"))
    world.gone("a")
    world.bind("b", ONE)
    manager = settled(world)
    assert world.evictions == []
    assert [wait.claim.uid for wait in world.heard.waiting] == ["b"]
    world.now += 60
    settled(world, manager)
    assert world.evictions == [("b", reasons.IN_USE)]
    assert ONE in world.there()


def test_a_card_that_does_not_answer_changes_nothing():
    """It may come back: what is ours stays ours, and a new pod waits for a while."""
    world = World()
    world.bind("a", ONE)
    settled(world)
    card = world.cards[GPU]
    world.cards[GPU] = card.__class__(GPU, fault="GPU is lost")
    world.gone("a")
    world.bind("b", TWO)
    world.now += 59
    world.claims["b"] = world.claims["b"].__class__(
        "b", "ns/b", "v", world.claims["b"].allocations, bound_at=world.now
    )
    settled(world)
    assert world.evictions == []
    assert [e.spot for e in decode_journal(world.annotations["journal"])] == [ONE]
    world.cards[GPU] = card
    settled(world)
    assert world.uuids("b") == [world.there()[TWO].uuid]


def test_a_refused_eviction_is_asked_for_again_later():
    """A budget may forbid it now; the API server is not asked in every round."""
    world = World(budget=False)
    world.by_hand(THREE)
    world.bind("a", THREE)
    manager = settled(world)
    settled(world, manager)
    assert len(world.evictions) == 1
    world.now += 10
    settled(world, manager)
    assert len(world.evictions) == 2


@pytest.mark.parametrize("place", [ONE, spot("1g.5gb", 9)])
def test_a_pod_that_the_api_server_refuses_keeps_no_other_waiting(place):
    """Its record or its eviction: it is tried again later, the others have theirs at once."""
    world = World(refused={"a"})
    world.bind("a", place)
    world.bind("b", TWO)
    manager = settled(world)
    assert (world.uuids("a"), world.evictions) == ([None], [])
    assert world.uuids("b") == [world.there()[TWO].uuid]
    world.refused.clear()
    settled(world, manager)
    assert (world.uuids("a"), world.evictions) == ([None], []), "asked again at once"
    world.now += 10
    settled(world, manager)
    assert world.evictions or world.uuids("a") == [world.there()[ONE].uuid]


def test_a_dry_run_changes_nothing():
    """It only says what it would do."""
    world = World()
    world.bind("a", ONE)
    manager = world.manager()
    manager.dry_run = True
    settled(world, manager)
    assert (world.there(), world.annotations) == ({}, {})


def story(world):
    """Pods come and go, one in use all the time, one instance made by hand; killed, it restarts."""

    def work():
        for _ in range(2):
            try:
                return settled(world)
            except Crash:
                continue
        raise AssertionError("killed twice")

    world.by_hand(spot("1g.5gb", 3))
    world.bind("a", ONE)
    work()
    world.using.update(world.uuids("a"))
    world.bind("b", TWO, spot("1g.5gb", 2))
    work()
    world.gone("b")
    world.bind("c", spot("1g.5gb", 0))
    work()
    world.now += 31
    work()


CALLS = 70
"""More calls than the story has."""


@pytest.mark.parametrize("dies_at", [None, *range(1, CALLS)])
def test_killed_at_any_call_and_restarted_it_comes_to_the_same(dies_at):
    """The survivor keeps its instance, what is by hand stays, everything else is gone."""
    world = World(dies_at=dies_at)
    story(world)
    assert world.calls < CALLS
    zero = spot("1g.5gb", 0)
    assert world.uuids("a") == [world.there()[ONE].uuid]
    assert set(world.there()) == {ONE, spot("1g.5gb", 3), zero}
    assert world.uuids("c") == [world.there()[zero].uuid]
    assert world.evictions == []
    assert {e.spot for e in decode_journal(world.annotations["journal"])} == {ONE, zero}


def test_a_node_that_changed_meanwhile_is_looked_at_again():
    """The journal is written under the version that the plan was made from."""
    world = World()
    world.bind("a", ONE)
    manager = world.manager()
    look = world.look

    def stale():
        sight = look()
        world.version += 1
        world.look = look
        return sight

    world.look = stale
    with pytest.raises(ApiError):
        manager.settle()
    assert world.there() == {}
    settled(world, manager)
    assert ONE in world.there()
