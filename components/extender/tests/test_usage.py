"""Accounting: kubelet's arithmetic per card, and sums that never drift."""

from dataclasses import replace

from extender_kit import container, device, make_node, make_pod
from hypothesis import given
from hypothesis import strategies as st

from hami_extender.inventory import NodeFacts, facts_of
from hami_extender.usage import (
    NOTHING,
    Kind,
    Ledger,
    Share,
    device_ids,
    footprint,
    holding_of,
)
from hamikit.codec import GrantedDevice
from hamikit.devices import NVIDIA
from hamikit.shape import Role, roles_of

INIT, SIDECAR, APP = Role.INIT, Role.SIDECAR, Role.APP


def dev(uuid, memory, cores=0):
    """A granted slice."""
    return GrantedDevice(uuid, "NVIDIA", memory, cores)


def test_sidecar_and_app_add_up():
    """A 4000 MiB sidecar beside a 4000 MiB app container is 8000 (HAMi 8.22)."""
    taken = footprint([SIDECAR, APP], ((dev("a", 4000),), (dev("a", 4000, 10),)))
    assert taken == {"a": Share(2, 8000, 10)}


def test_init_containers_count_one_at_a_time():
    """The largest init container counts, with the sidecars started before it and no later ones."""
    roles = [INIT, SIDECAR, INIT, SIDECAR, APP]
    slots = tuple((dev("a", memory),) for memory in (5000, 1000, 3000, 500, 100))
    assert footprint(roles, slots)["a"] == Share(2 + 1, 5000, 0)
    slots = tuple((dev("a", memory),) for memory in (3000, 1000, 3000, 500, 100))
    assert footprint(roles, slots)["a"].memory_mib == 4000


def test_an_exclusive_init_container_keeps_the_card_exclusive():
    """The peak of each part counts, exclusiveness too."""
    taken = footprint([INIT, APP], ((dev("a", 10, 100),), (dev("a", 20, 30),)))
    assert taken == {"a": Share(1, 20, 100, 1)}


def test_slots_that_hami_lost_are_put_back_in_front():
    """With fewer slots than containers they are the last ones' (HAMi 8.1); more are ignored."""
    assert footprint([INIT, APP], ((dev("a", 7),),)) == {"a": Share(1, 7, 0)}
    assert footprint([INIT, APP, APP], ((dev("a", 7),), (dev("a", 5),))) == {"a": Share(2, 12, 0)}
    assert footprint([APP], ((dev("a", 7),), (), ())) == {"a": Share(1, 7, 0)}


def test_roles_of_a_pod():
    """A sidecar is an init container that always restarts."""
    sidecar = {**container("s"), "restartPolicy": "Always"}
    assert roles_of(make_pod("p", container(), init=(container("i"), sidecar))) == [
        INIT,
        SIDECAR,
        APP,
    ]


def phases(roles, values):
    """The oracle: what runs together at each moment of a pod's life."""
    for number, role in enumerate(roles):
        if role is INIT:
            before = [i for i in range(number) if roles[i] is SIDECAR]
            yield [*before, number]
    yield [i for i, role in enumerate(roles) if role is not INIT]


pods = st.lists(
    st.tuples(
        st.sampled_from([INIT, SIDECAR]),
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 100))),
    ),
    max_size=4,
).flatmap(
    lambda init: st.tuples(
        st.just(init),
        st.lists(
            st.tuples(
                st.just(APP),
                st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 100))),
            ),
            max_size=3,
        ),
    )
)


@given(pods)
def test_footprint_is_the_worst_moment(parts):
    """Per card and part: the maximum over all moments of the sum of what runs then."""
    rows = parts[0] + parts[1]
    roles = [role for role, _ in rows]
    slots = tuple(tuple(dev(*one) for one in devices) for _, devices in rows)
    taken = footprint(roles, slots)
    for uuid in "ab":
        worst = NOTHING
        for running in phases(roles, slots):
            now = NOTHING
            for i in running:
                for one in slots[i]:
                    if one.uuid == uuid:
                        now += Share(1, one.memory_mib, one.cores, int(one.cores >= 100))
            worst = worst.peak(now)
        assert taken.get(uuid, NOTHING) == worst
    counts = [len(slot) for slot in slots]
    assert device_ids(roles, counts) == max(
        sum(counts[i] for i in running) for running in phases(roles, slots)
    )


def test_a_node_that_never_was_leaves_nothing_behind():
    """Its end may be told without its beginning."""
    ledger = Ledger()
    ledger.set_facts("ghost", None)
    assert ledger.nodes == {}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["u1", "u2", "u3"]),
            st.sampled_from(["n1", "n2", None]),
            st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 100))),
        ),
        max_size=30,
    )
)
def test_the_ledger_equals_the_sum_of_its_holdings(steps):
    """After any order of holding, replacing and releasing nothing is left over or missing."""
    ledger = Ledger()
    versions = set()
    for uid, node, devices in steps:
        if node is None:
            ledger.release(uid)
        else:
            slot, before = tuple(dev(*one) for one in devices), ledger.holdings.get(uid)
            ledger.hold(uid, holding_of(Kind.GRANT, node, uid, [APP], (slot,)))
            version = ledger.nodes[node].version
            assert before == ledger.holdings[uid] or version not in versions
            versions.add(version)
        assert ledger.nodes.keys() == {held.node for held in ledger.holdings.values()}
        for name, state in ledger.nodes.items():
            held = [h for h in ledger.holdings.values() if h.node == name]
            for uuid in "ab":
                total = NOTHING
                for one in held:
                    total += one.taken.get(uuid, NOTHING)
                assert state.used.get(uuid, NOTHING) == total
            assert state.ids.get("NVIDIA", 0) == sum(h.ids.get("NVIDIA", 0) for h in held)


def test_a_node_that_left_keeps_its_pods():
    """Node objects come and go; what pods hold there stays counted."""
    ledger = Ledger()
    ledger.set_facts("n", NodeFacts("n"))
    ledger.hold("u", holding_of(Kind.GRANT, "n", "d/p", [APP], ((dev("a", 5),),)))
    ledger.set_facts("n", None)
    ledger.set_facts("n", NodeFacts("n"))
    assert ledger.nodes["n"].used == {"a": Share(1, 5, 0)}
    assert ledger.nodes["n"].missing_cards() == ["a"]
    ledger.set_facts("n", None)
    ledger.release("u")
    assert ledger.nodes == {}


def test_facts_that_are_not_new_change_nothing():
    """The answer says so, and nobody has to look again."""
    ledger, facts = Ledger(), NodeFacts("n")
    assert ledger.set_facts("n", facts) is True
    before = ledger.nodes["n"].version
    assert ledger.set_facts("n", NodeFacts("n")) is False
    assert ledger.nodes["n"].version == before
    assert ledger.set_facts("n", None) is True
    assert ledger.nodes == {}


def test_who_counts_with_the_ledger_is_told_beginnings_and_ends():
    """Once each, with the sign; a holding that is replaced ends first."""
    told = []
    ledger = Ledger(counted=lambda holding, sign: told.append((holding.pod, sign)))
    first, second = (
        holding_of(Kind.GRANT, "n", pod, [APP], ((dev("a", 1),),)) for pod in ("d/p", "d/q")
    )
    ledger.hold("u", first)
    ledger.hold("u", second)
    assert ledger.release("u") is second
    assert ledger.release("u") is None
    assert told == [("d/p", 1), ("d/p", -1), ("d/q", 1), ("d/q", -1)]


def test_a_holding_that_only_becomes_surer_changes_no_node():
    """A claim that is bound, a bind that the watch shows: nobody has to look again."""
    told = []
    ledger = Ledger(counted=lambda holding, sign: told.append((holding.kind, sign)))
    claim = holding_of(Kind.CLAIM, "n", "d/p", [APP], ((dev("a", 1),),))
    ledger.hold("u", claim)
    version, position = ledger.nodes["n"].version, ledger.journal.position
    ledger.hold("u", replace(claim, kind=Kind.FLIGHT))
    assert (ledger.nodes["n"].version, ledger.journal.position) == (version, position)
    assert ledger.claims_on("n") == []
    assert ledger.nodes["n"].holders["u"].kind is ledger.holdings["u"].kind is Kind.FLIGHT
    assert told == [(Kind.CLAIM, 1), (Kind.CLAIM, -1), (Kind.FLIGHT, 1)]
    ledger.hold("u", replace(claim, kind=Kind.GRANT, readable=False))
    assert ledger.nodes["n"].unreadable == 1
    assert ledger.journal.position > position


def test_ids_and_unreadable_grants_are_taken_back():
    """By family; nothing of a pod stays."""
    ledger = Ledger()
    ledger.set_facts("n", NodeFacts("n"))
    slots = ((dev("a", 1), dev("b", 1)), (dev("a", 1), GrantedDevice("c", "DCU", 1, 0)))
    held = holding_of(Kind.GRANT, "n", "d/p", [INIT, APP], slots)
    assert held.ids == {"NVIDIA": 2, "DCU": 1}
    assert held.readable
    ledger.hold("u", held)
    ledger.hold("w", replace(held, readable=False))
    state = ledger.nodes["n"]
    assert (state.ids, state.unreadable) == ({"NVIDIA": 4, "DCU": 2}, 1)
    assert state.missing_cards() == ["a", "b", "c"]
    ledger.release("w")
    assert (state.ids, state.unreadable, set(state.holders)) == (
        {"NVIDIA": 2, "DCU": 1},
        0,
        {"u"},
    )


def test_only_claims_are_claims():
    """Of this node."""
    ledger = Ledger()
    for uid, kind, node in (("c", Kind.CLAIM, "n"), ("g", Kind.GRANT, "n"), ("o", Kind.CLAIM, "m")):
        ledger.hold(uid, holding_of(kind, node, f"d/{uid}", [APP], ((dev("a", 1),),)))
    assert ledger.claims_on("n") == ["c"]
    assert ledger.claims_on("nowhere") == []


def test_how_sure_a_holding_is_has_three_words():
    """They stand in metrics and in /state."""
    assert [kind.value for kind in Kind] == ["claim", "flight", "grant"]


def test_cards_that_a_node_does_not_announce():
    """Held and not announced, or held on a node that nobody knows (yet)."""
    ledger = Ledger()
    held = holding_of(Kind.GRANT, "n", "ns/p", [APP], ((dev("a", 1), dev("b", 1)),))
    ledger.hold("u", held)
    assert ledger.nodes["n"].missing_cards() == ["a", "b"]
    ledger.set_facts("n", facts_of(make_node("n", device("b")), (NVIDIA,)))
    assert ledger.nodes["n"].missing_cards() == ["a"]
