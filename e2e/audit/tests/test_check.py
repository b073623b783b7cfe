"""Planted violations: each is found, alone, and named."""

from dataclasses import replace

import pytest

from e2e.audit.check import audit, per_card
from e2e.audit.model import (
    MIB,
    Card,
    Container,
    ControlFile,
    Device,
    Limit,
    Node,
    NodeSide,
    Pod,
    Snapshot,
    Use,
)

CARD = Card("GPU-a", 10000, 100, 3)
OTHER = Card("GPU-b", 10000, 100, 3)
FAR = Card("GPU-z", 10000, 100, 3)


def pod(name, *devices, role="app", node="n1"):
    """A running pod `ns/<name>` with one container that was granted these devices."""
    granted = tuple(Device(*device) for device in devices)
    main = Container("main", role, granted, running=True, ids=frozenset({f"id-{name}"}))
    return Pod(f"uid-{name}", f"ns/{name}", node, node, (main,))


def snapshot(*pods, **side):
    """Two nodes and these pods; on n1 all is as the pods were granted, but for `side`."""
    local = [p for p in pods if p.node == "n1"]
    limits = {
        (p.uid, c.name): ControlFile(
            tuple(Limit(d.uuid, d.memory_mib * MIB, d.cores) for d in c.granted)
        )
        for p in local
        for c in p.containers
    }
    uses = tuple(
        Use(d.uuid, 7, d.memory_mib * MIB, (p.uid, identity))
        for p in local
        for c in p.containers
        for identity in c.ids
        for d in c.granted
    )
    good = NodeSide(limits, uses, frozenset({"GPU-a", "GPU-b"}))
    nodes = (Node("n1", (CARD, OTHER)), Node("n2", (FAR,)))
    return Snapshot(nodes, pods, {"n1": replace(good, **side)})


def found(snapshot):
    """Kind and subject of every violation."""
    return [(v.kind, v.subject) for v in audit(snapshot)]


HEALTHY = (
    pod("a", ("GPU-a", 5000, 50), ("GPU-b", 10000, 100)),
    pod("b", ("GPU-a", 5000, 50)),
    pod("c", ("GPU-z", 1, 0), node="n2"),
)
ONE = pod("a", ("GPU-a", 3000, 30))


def test_a_full_and_honest_cluster_is_clean():
    """Cards that are full to the last MiB and percent are no violation."""
    assert audit(snapshot(*HEALTHY)) == []
    assert audit(Snapshot()) == []


def test_what_was_not_read_is_not_judged():
    """Without a node's side only the API is audited."""
    api_only = replace(snapshot(*HEALTHY), sides={})
    assert audit(api_only) == []


@pytest.mark.parametrize(
    ("pods", "kinds"),
    [
        ([("GPU-a", 5001, 10), ("GPU-a", 5000, 10)], ["overcommitted-memory"]),
        ([("GPU-a", 1, 51), ("GPU-a", 1, 50)], ["overcommitted-cores"]),
        ([("GPU-a", 1, 1)] * 4, ["overcommitted-slots"]),
        ([("GPU-a", 1, 100), ("GPU-a", 1, 0)], ["exclusive-shared"]),
        ([("GPU-a", 1, 100), ("GPU-a", 1, 100)], ["exclusive-shared", "overcommitted-cores"]),
    ],
)
def test_a_card_promised_twice(pods, kinds):
    """Memory, cores, slots, or a card that one pod was to have alone."""
    planted = snapshot(*(pod(str(i), device) for i, device in enumerate(pods)))
    assert found(planted) == [(kind, "GPU-a") for kind in kinds]


def test_the_text_says_how_much_and_to_whom():
    """What a person needs to go on."""
    (violation,) = audit(snapshot(pod("a", ("GPU-a", 6000, 0)), pod("b", ("GPU-a", 5000, 0))))
    assert str(violation) == (
        "overcommitted-memory: n1: GPU-a: 11000 granted of 10000, to ns/a, ns/b"
    )


def test_a_card_of_its_own_may_announce_fewer_cores():
    """Exclusive is exclusive, whatever the card's core scaling."""
    small = replace(CARD, cores=50)
    alone = replace(snapshot(pod("a", ("GPU-a", 1, 100))), nodes=(Node("n1", (small,)),), sides={})
    assert audit(alone) == []


def test_init_and_app_containers_take_turns():
    """What one pod uses one after the other is counted once."""
    init = Container("init", "init", (Device("GPU-a", 9000, 90),))
    app = Container("app", "app", (Device("GPU-a", 9000, 90),))
    turns = Pod("uid-a", "ns/a", "n1", "n1", (init, app))
    assert audit(snapshot(turns, controls={}, uses=())) == []


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ((Limit("GPU-b", 3000 * MIB, 30),), "GPU-b 3000 MiB 30 %"),
        ((Limit("GPU-a", 3001 * MIB, 30),), "GPU-a 3001 MiB 30 %"),
        ((Limit("GPU-a", 3000 * MIB, 31),), "GPU-a 3000 MiB 31 %"),
        ((Limit("GPU-a", 0, 30),), "no memory limit"),
        ((), "control file: nothing"),
        ((Limit("GPU-a", 3000 * MIB, 30),) * 2, "GPU-a 3000 MiB 30 %, GPU-a"),
    ],
)
def test_a_control_file_that_says_something_else(limits, text):
    """Card, memory, cores, no limit, no card, one card too many."""
    controls = {("uid-a", "main"): ControlFile(limits)}
    (violation,) = audit(snapshot(ONE, controls=controls))
    assert (violation.kind, violation.subject) == ("control-differs", "ns/a/main")
    assert text in violation.text


def test_all_cores_and_no_core_limit_are_the_same():
    """The limiter takes 0 and 100 for no limit."""
    full = pod("a", ("GPU-a", 3000, 100))
    controls = {("uid-a", "main"): ControlFile((Limit("GPU-a", 3000 * MIB, 0),))}
    assert audit(snapshot(full, controls=controls)) == []


def test_a_running_container_without_a_control_file():
    """It runs without limits; one that does not run yet is not judged."""
    assert found(snapshot(ONE, controls={})) == [("no-control-file", "ns/a/main")]
    waiting = replace(ONE, containers=(replace(ONE.containers[0], running=False),))
    assert found(snapshot(waiting, controls={})) == []


def test_a_control_file_that_cannot_be_read():
    """Nobody can say what is enforced."""
    controls = {("uid-a", "main"): ControlFile(fault="4 bytes")}
    assert found(snapshot(ONE, controls=controls)) == [("bad-control-file", "ns/a/main")]


def test_use_above_the_grant():
    """Two processes of one container are added up; each within the limit is not enough."""
    half = Use("GPU-a", 7, 1501 * MIB, ("uid-a", "id-a"))
    assert found(snapshot(ONE, uses=(half, half))) == [("use-above-grant", "ns/a/main")]


@pytest.mark.parametrize(
    ("use", "subject"),
    [
        (Use("GPU-b", 7, MIB, ("uid-a", "id-a")), "ns/a/main"),
        (Use("GPU-a", 8, MIB, None, "it is in no pod"), "GPU-a process 8"),
        (Use("GPU-a", 8, MIB, ("uid-x", "id-x")), "GPU-a process 8"),
        (Use("GPU-a", 8, MIB, ("uid-a", "id-x")), "GPU-a process 8"),
        (Use("GPU-a", 8, MIB, ("uid-far", "id-far")), "GPU-a process 8"),
    ],
)
def test_use_without_a_grant(use, subject):
    """Another card, no pod, unknown pod, unknown container of a known pod, another node's pod."""
    far = pod("far", ("GPU-z", 3000, 30), node="n2")
    assert found(snapshot(ONE, far, uses=(use,))) == [("use-without-grant", subject)]


def test_a_grant_of_another_node():
    """The annotation names one node, the pod runs on another."""
    assert found(snapshot(replace(ONE, granted_node="n2"))) == [("wrong-node", "ns/a")]


def test_a_grant_on_an_unknown_card():
    """A card of another node, and one that nobody has."""
    planted = snapshot(pod("a", ("GPU-z", 1, 1), ("GPU-?", 1, 1)))
    assert found(planted) == [("unknown-card", "ns/a")]
    texts = [v.text for v in audit(snapshot(pod("a", ("GPU-z", 1, 1))))]
    assert texts == ["GPU-z is a card of n2"]


def test_a_node_that_announces_a_card_it_does_not_have():
    """The ledger knows the cards that are really there."""
    planted = snapshot(real_cards=frozenset({"GPU-a"}))
    assert found(planted) == [("unknown-card", "GPU-b")]


def test_what_cannot_be_read_is_a_violation():
    """Silence would be taken for a clean bill."""
    faulty = replace(ONE, containers=(), fault="grant 'x'")
    planted = replace(snapshot(faulty), nodes=(Node("n1", fault="not JSON"),))
    assert found(planted) == [("unreadable-grant", "ns/a"), ("unreadable-register", "n1")]


def test_several_at_once_are_all_found():
    """One does not hide another."""
    first = pod("a", ("GPU-a", 6000, 60))
    second = replace(pod("b", ("GPU-a", 6000, 60)), granted_node="n2")
    stray = Use("GPU-b", 9, MIB, None, "it is in no pod")
    planted = snapshot(first, second, pod("c", ("GPU-?", 1, 1)), controls={}, uses=(stray,))
    assert {kind for kind, _ in found(planted)} == {
        "overcommitted-memory",
        "overcommitted-cores",
        "wrong-node",
        "unknown-card",
        "no-control-file",
        "use-without-grant",
    }


def test_the_three_accounts_side_by_side():
    """Granted by the API, enforced by control files, used on the card."""
    row = per_card(snapshot(*HEALTHY))["n1", "GPU-a"]
    assert row == {
        "slots": 3,
        "slots_granted": 2,
        "memory_mib": 10000,
        "memory_granted_mib": 10000,
        "cores": 100,
        "cores_granted": 100,
        "memory_enforced_mib": 10000,
        "memory_used_mib": 10000,
    }
