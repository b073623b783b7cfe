"""Which cards a container gets: HAMi's order of tests, its counters, and an oracle."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami_extender.cards import Cards, charge
from hami_extender.fit import Misfit, fit_container
from hami_extender.inventory import Card
from hami_extender.wish import Wish
from hamikit.footprint import NOTHING, Share
from hamikit.selectors import Selectors
from hamikit.shape import ContainerRequest


def card(uuid, index=0, **changes):
    """A card of 8000 MiB."""
    given_ = {
        "slots": 10,
        "memory_mib": 8000,
        "cores": 100,
        "type": "NVIDIA-Test",
        "numa": 0,
        "mode": "hami-core",
        "health": True,
    }
    return Card(uuid=uuid, index=index, **{**given_, **changes})


def cards(*entries, cordoned=()):
    """A node's cards; an entry is a card or (card, used)."""
    pairs = [entry if isinstance(entry, tuple) else (entry, NOTHING) for entry in entries]
    return Cards([c for c, _ in pairs], [u for _, u in pairs], frozenset(cordoned), "NVIDIA")


def ask(count=1, mem=1000, cores=0, percent=0):
    """A container's request."""
    return ContainerRequest(count, mem, percent, cores)


def wish(policy="spread", **selectors):
    """A pod's wishes."""
    return Wish.of(Selectors(**selectors), policy)


REJECTED = [
    ("unhealthy", card("a", health=False), NOTHING, ask(), wish(), "CardNotHealth"),
    ("type", card("a"), NOTHING, ask(), wish(use_type="H100"), "CardTypeMismatch"),
    ("no type", card("a"), NOTHING, ask(), wish(nouse_type="x, TEST"), "CardTypeMismatch"),
    ("empty entries", card("a"), NOTHING, ask(), wish(use_type=" , "), "CardTypeMismatch"),
    ("mode", card("a"), NOTHING, ask(), wish(vgpu_mode="mig"), "CardTypeMismatch"),
    ("uuid", card("a"), NOTHING, ask(), wish(use_uuid="b,c"), "CardUuidMismatch"),
    ("no uuid", card("a"), NOTHING, ask(), wish(nouse_uuid="b, a"), "CardUuidMismatch"),
    ("slots", card("a", slots=1), Share(1), ask(), wish(), "CardTimeSlicingExhausted"),
    ("mutex", card("a"), Share(1), ask(), wish("mutex"), "ExclusiveDeviceAllocateConflict"),
    (
        "mutex in a list",
        card("a"),
        Share(1),
        ask(),
        wish("spread, mutex"),
        "ExclusiveDeviceAllocateConflict",
    ),
    ("memory", card("a"), Share(1, 7001), ask(), wish(), "CardInsufficientMemory"),
    (
        "percent",
        card("a"),
        Share(1, 4001),
        ask(mem=0, percent=50),
        wish(),
        "CardInsufficientMemory",
    ),
    ("cores", card("a"), Share(1, 0, 71), ask(cores=30), wish(), "CardInsufficientCore"),
    ("exclusive", card("a"), Share(1), ask(cores=100), wish(), "ExclusiveDeviceAllocateConflict"),
    ("no cores left", card("a"), Share(2, 0, 100), ask(), wish(), "CardComputeUnitsExhausted"),
    ("mig", card("a", mode="mig"), NOTHING, ask(), wish(), "CardMigTopologyInfeasible"),
    (
        "exclusive, cores scaled up",
        card("a", cores=200),
        Share(1, 0, 30),
        ask(cores=100),
        wish(),
        "ExclusiveDeviceAllocateConflict",
    ),
    (
        "beside an exclusive task, cores scaled up",
        card("a", cores=200),
        Share(1, 0, 100, 1),
        ask(cores=30),
        wish(),
        "ExclusiveDeviceAllocateConflict",
    ),
]


@pytest.mark.parametrize(
    ("one", "used", "request_", "wanted", "reason"),
    [row[1:] for row in REJECTED],
    ids=[row[0] for row in REJECTED],
)
def test_each_test_has_its_reason(one, used, request_, wanted, reason):
    """A card that fails a test is counted under that test's word."""
    found = fit_container(cards((one, used)), wanted, request_)
    assert found == Misfit(f"1/1 {reason}", ((0, reason),))


def test_cordoned():
    """A cordoned card takes nothing new."""
    assert fit_container(cards(card("a"), cordoned=["a"]), wish(), ask()) == Misfit(
        "1/1 CardCordoned", ((0, "CardCordoned"),)
    )


def test_more_cards_than_the_node_has():
    """Asking for more cards than there are has its own reason, without counters."""
    assert fit_container(cards(card("a")), wish(), ask(2)) == Misfit("NodeInsufficientDevice")


def test_reason_text_is_sorted_and_counts_the_incomplete_choice():
    """The pieces `k/n Reason` are sorted as strings; cards chosen in vain are counted too."""
    node = cards(card("a"), (card("b"), Share(1, 7500)), card("c", health=False))
    found = fit_container(node, wish(), ask(3))
    assert found.reason == (
        "1/3 AllocatedCardsInsufficientRequest, 1/3 CardInsufficientMemory, 1/3 CardNotHealth"
    )


def test_types_match_in_any_case_and_by_part():
    """`use-gputype: a100` finds NVIDIA-A100-SXM4-40GB."""
    node = cards(card("a", type="NVIDIA-A100-SXM4-40GB"), card("b", type="NVIDIA-T4"))
    assert fit_container(node, wish(use_type="a100"), ask()) == [0]


def test_uuids_match_whole():
    """A UUID that another one starts with is not that other card."""
    node = cards(card("GPU-1"), card("GPU-12", 1))
    assert fit_container(node, wish(use_uuid="GPU-1"), ask()) == [0]
    assert fit_container(node, wish(nouse_uuid="GPU-1"), ask()) == [1]


def test_a_wish_may_name_several_modes():
    """A card will do if its mode is among them."""
    assert fit_container(cards(card("a")), wish(vgpu_mode="mps,hami-core"), ask()) == [0]


def test_what_is_asked_counts_only_where_the_type_is_the_vendors_word():
    """HAMi's order: elsewhere cards are compared as they are, before the request."""
    for kind, expected in (("NVIDIA", 0), ("NVIDIA-Test", 1)):
        node = cards(card("large", 0, memory_mib=16000, type=kind), card("small", 1, type=kind))
        assert fit_container(node, wish("spread"), ask(mem=4000)) == [expected]


@pytest.mark.parametrize("cores", [50, 100, 200])
def test_exclusive_is_satisfiable_on_a_free_card_whatever_the_scaling(cores):
    """Gpucores 100 asks for an unused card, also where its cores are scaled (HAMi 8.23)."""
    assert fit_container(cards(card("a", cores=cores)), wish(), ask(cores=100)) == [0]


def test_spread_takes_the_last_of_equal_cards_first():
    """Two equal empty cards: one GPU is the second card; two GPUs are second, first (7.3)."""
    node = cards(card("uuid1"), card("uuid2", 1))
    assert fit_container(node, wish(), ask()) == [1]
    assert fit_container(node, wish(), ask(2)) == [1, 0]


def test_numa_bind_stays_within_a_group():
    """With numa-bind two cards come from one NUMA node although another has one to offer."""
    node = cards(card("a", 0, numa=0), card("b", 1, numa=0), card("c", 2, numa=1))
    assert sorted(fit_container(node, wish(numa_bind=True), ask(2))) == [0, 1]
    found = fit_container(node, wish(numa_bind=True), ask(3))
    assert found.reason == "1/3 NumaNotFit, 2/3 AllocatedCardsInsufficientRequest"
    assert found.cards == ((2, "NumaNotFit"),)


def test_a_card_that_is_out_starts_no_group():
    """What was gathered before it is short of cards, not torn apart."""
    node = cards(card("a", 0), card("b", 1), card("c", 2, numa=1, health=False))
    found = fit_container(node, wish("binpack", numa_bind=True), ask(3))
    assert found == Misfit(
        "1/3 CardNotHealth, 2/3 AllocatedCardsInsufficientRequest", ((2, "CardNotHealth"),)
    )


shares = st.builds(
    Share, st.integers(0, 4), st.integers(0, 8000), st.integers(0, 100), st.integers(0, 1)
)
some_cards = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from([4000, 8000]),
        st.sampled_from([50, 100, 200]),
        st.booleans(),
        shares,
    ),
    min_size=1,
    max_size=6,
)
requests = st.builds(
    ContainerRequest,
    st.integers(1, 4),
    st.integers(1, 8000),
    st.just(0),
    st.sampled_from([0, 1, 30, 99, 100]),
)


def may_have(one, used, request_):
    """The oracle: whether one card can take the request, said as plainly as possible."""
    if not one.health or used.slots + 1 > one.slots:
        return False
    if used.memory_mib + request_.memory_mib > one.memory_mib:
        return False
    if request_.cores == 100:
        return used.slots == 0
    if used.exclusive or used.cores + request_.cores > one.cores:
        return False
    return request_.cores > 0 or used.cores < one.cores


@given(some_cards, requests, st.sampled_from(["spread", "binpack", "mutex", "numa,binpack"]))
def test_fit_agrees_with_the_oracle(rows, request_, policy):
    """Cards are found exactly where enough of them can take the request, each at most once."""
    entries = [
        (card(f"c{i}", i, slots=slots, memory_mib=memory, cores=cores, health=health), used)
        for i, (slots, memory, cores, health, used) in enumerate(rows)
    ]
    node = cards(*entries)
    able = [
        i
        for i, (one, used) in enumerate(entries)
        if may_have(one, used, request_) and not (policy == "mutex" and used.slots)
    ]
    found = fit_container(node, wish(policy), request_)
    if isinstance(found, Misfit):
        assert len(able) < request_.count
        if request_.count <= len(entries):
            counted = Counter(reason for _, reason in found.cards)
            assert sum(counted.values()) + len(able) == len(entries)
    else:
        assert len(set(found)) == len(found) == request_.count
        assert set(found) <= set(able)
        charged = charge(node, request_, found, passing=False).used
        assert all(charged[i].memory_mib <= entries[i][0].memory_mib for i in found)
