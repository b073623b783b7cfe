"""HAMi's own acceptance scenarios of MIG, on a simulated driver through unmodified pynvml.

The scheduler of these tests is HAMi's rule: the smallest profile of its allowlist that holds the
request, 1g and 3g from the end of the card, the others from its start.
"""

import pytest
from mig_world import World

from hami_mig_manager import reasons
from hami_mig_manager.cards import NvmlCards
from hami_mig_manager.journal import decode_journal
from hami_mig_manager.state import Spot
from hami_mig_manager.view import place
from hamikit.mig import decode_blocked

A100 = ("1g.5gb", "2g.10gb", "3g.20gb", "7g.40gb")
RTX = ("1g.24gb", "2g.48gb", "4g.96gb")
"""HAMi's allowlist for each."""


class Node(World):
    """One card of the simulated driver, and the API server in memory."""

    def __init__(self, driver, profiles):
        super().__init__(cards={})
        self.driver, self.names = driver, profiles
        self.real = NvmlCards(driver.nvml)
        if not all(card.enabled for card in self.real.read().values()):
            for uuid in self.real.read():
                self.real.set_mode(uuid, enabled=True)
        cards = self.real.read().values()
        found = [c for c in cards if {p.name for p in c.profiles} >= set(profiles)]
        self.card = found[0].uuid
        self.busy_manager = self.manager()
        self.work()

    def read(self):
        self.step("read")
        self.cards = {uuid: c for uuid, c in self.real.read().items() if uuid == self.card}
        return self.cards

    def create(self, spot):
        self.step("create")
        self.real.create(spot)

    def complete(self, instance):
        self.step("compute")
        self.real.complete(instance)

    def destroy(self, instance):
        self.allowed(next(i for i in self.there().values() if i.id == instance.id))
        self.step("destroy")
        self.real.destroy(instance)

    # What the scenarios say.

    def work(self):
        """Let the manager do what there is to do, and look at the cards afterwards."""
        self.busy_manager.settle()
        self.read()

    def place(self, memory_mib):
        """Where the scheduler has room for this, None when nowhere."""
        taken = [
            Spot(a.gpu_uuid, a.profile, a.placement.start, a.placement.size)
            for claim in self.claims.values()
            for a in claim.allocations
        ]
        taken += map(place, decode_blocked(self.annotations.get("blocked") or ""))
        profiles = [p for p in self.cards[self.card].profiles if p.name in self.names]
        for profile in sorted(profiles, key=lambda p: p.memory_mib):
            last_first = profile.name.startswith(("1g.", "3g."))
            for at in sorted(profile.placements, key=lambda p: p.start, reverse=last_first):
                spot = Spot(self.card, profile.name, at.start, at.size)
                if profile.memory_mib >= memory_mib and not any(map(spot.overlaps, taken)):
                    return spot
        return None

    def pod(self, name, memory_mib):
        """Place a pod; its place, None when it stays pending and unbound."""
        spot = self.place(memory_mib)
        if spot is not None:
            self.bind(name, spot)
        return spot

    def pods(self, **requests):
        """Place several at once and let the manager work; every one has an instance of its own."""
        spots = {name: self.pod(name, memory) for name, memory in requests.items()}
        self.work()
        assert None not in spots.values(), spots
        self.check()
        return spots

    def check(self):
        """Every pod's record is the instance that is there; nobody shares; the journal knows."""
        told = {uid: self.uuids(uid) for uid in self.claims}
        there = self.there()
        for uid, claim in self.claims.items():
            (a,) = claim.allocations
            spot = Spot(a.gpu_uuid, a.profile, a.placement.start, a.placement.size)
            assert told[uid] == [there[spot].uuid], uid
        assert len({uuid for (uuid,) in told.values()}) == len(told)
        journal = {entry.mig_uuid for entry in decode_journal(self.annotations["journal"] or "")}
        assert journal >= {uuid for (uuid,) in told.values()}

    def delete(self, *names):
        """Pods are gone."""
        for name in names:
            self.gone(name)
        self.work()

    def restart(self):
        """A manager with an empty memory, and a client of the driver of its own."""
        self.driver.nvml.close()
        self.busy_manager = self.manager()
        self.work()


@pytest.fixture
def make_node(driver):
    """Makes the one node of a test; afterwards the card is as it was."""
    made = []

    def make(profiles):
        made.append(Node(driver, profiles))
        return made[0]

    yield make
    for node in made:
        for instance in node.real.read()[node.card].instances:
            node.real.destroy(instance)


@pytest.fixture
def a100(make_node):
    """An A100 of 40 GB."""
    return make_node(A100)


@pytest.fixture
def rtx(make_node):
    """An RTX PRO 6000."""
    return make_node(RTX)


def where(spots):
    """Profile and first slice of each pod."""
    return {name: (spot.profile, spot.start) for name, spot in spots.items()}


def test_two_small_and_one_larger_at_once(a100):
    """Scenario 1."""
    found = a100.pods(a=4500, b=4500, c=9500)
    assert where(found) == {"a": ("1g.5gb", 6), "b": ("1g.5gb", 5), "c": ("2g.10gb", 0)}


def test_a_full_card_keeps_a_pod_pending_until_room_is_freed(a100):
    """Scenarios 2 to 4: full, restarted while busy, one goes, the pending one starts."""
    a100.pods(a=4500, x=9500, y=9500, z=9500)
    assert a100.pod("late", 4500) is None
    before = {uid: a100.uuids(uid) for uid in a100.claims}
    a100.restart()
    assert {uid: a100.uuids(uid) for uid in a100.claims} == before
    a100.delete("y")
    a100.pods(late=4500)
    before.pop("y")
    assert {uid: a100.uuids(uid) for uid in before} == before


def test_two_large_ones_leave_no_room(a100):
    """Scenario 5: a small one is refused before it is bound."""
    found = a100.pods(a=19000, b=19000)
    assert where(found) == {"a": ("3g.20gb", 4), "b": ("3g.20gb", 0)}
    assert a100.pod("small", 4500) is None


def test_mixed_sizes_overflow_and_immediate_reuse(a100):
    """Scenario 6; it needs the 3g at slice 4."""
    found = a100.pods(three=19000, two=9500, one=4500, other=4500)
    assert where(found) == {
        "three": ("3g.20gb", 4),
        "two": ("2g.10gb", 0),
        "one": ("1g.5gb", 3),
        "other": ("1g.5gb", 2),
    }
    assert a100.pod("more", 4500) is None
    kept = a100.uuids("three")
    a100.delete("two", "one")
    a100.pods(again=9500, small=4500)
    assert a100.uuids("three") == kept


def test_seven_small_ones_and_a_refill(a100):
    """Scenario 7: survivors keep their UUIDs."""
    a100.pods(**{f"p{i}": 4500 for i in range(7)})
    assert a100.pod("p7", 4500) is None
    kept = {f"p{i}": a100.uuids(f"p{i}") for i in (0, 2, 4, 6)}
    a100.delete("p1", "p3", "p5")
    a100.pods(q1=4500, q3=4500, q5=4500)
    assert {name: a100.uuids(name) for name in kept} == kept
    assert len(a100.there()) == 7


def test_the_card_of_four_slices(rtx):
    """Mixed, exact reclaim and reuse, restart, saturation, refill, and the full profile."""
    rtx.pods(a=8000, b=30000)
    two = rtx.uuids("b")
    rtx.delete("a")
    rtx.pods(c=8000)
    rtx.restart()
    assert rtx.uuids("b") == two
    rtx.delete("b", "c")
    rtx.pods(**{f"p{i}": 8000 for i in range(4)})
    assert rtx.pod("p4", 8000) is None
    rtx.delete("p1")
    rtx.pods(again=8000)
    rtx.delete("p0", "p2", "p3", "again")
    rtx.pods(whole=60000)
    assert rtx.pod("beside", 8000) is None


def test_at_the_end_nothing_of_ours_is_left(a100):
    """After the grace period; what was made by hand is."""
    a100.driver.command("cut", a100.card, "1g.5gb", "3")
    a100.work()
    by_hand = next(iter(a100.there()))
    assert [b.reason for b in decode_blocked(a100.annotations["blocked"])] == [reasons.MADE_BY_HAND]
    a100.foreign.add(by_hand)
    a100.pods(a=19000, b=9500)
    a100.delete("a", "b")
    assert len(a100.there()) == 3
    a100.now += 31
    a100.work()
    assert set(a100.there()) == {by_hand}


@pytest.mark.parametrize(
    "symbol",
    [
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlGpuInstanceCreateComputeInstance",
    ],
)
@pytest.mark.parametrize(
    ("code", "reason"),
    [(23, reasons.INSUFFICIENT), (19, reasons.IN_USE), (16, reasons.RESET_REQUIRED), (999, None)],
)
def test_the_drivers_errors(a100, symbol, code, reason):
    """Those that last send the pod away with nothing left on the card; one that may pass does."""
    a100.driver.command("fail", symbol, "1", str(code))
    spot = a100.pod("a", 4500)
    a100.work()
    if reason is None:
        a100.now += 1
        a100.work()
        a100.check()
    else:
        assert a100.evictions == [("a", reason)]
        assert a100.there() == {}
        assert a100.place(4500) != spot


def test_destruction_that_fails_half_way_is_finished_later(a100):
    """The compute instance went, the GPU instance did not."""
    a100.pods(a=4500)
    a100.delete("a")
    a100.now += 31
    a100.driver.command("fail", "nvmlGpuInstanceDestroy", "1", "999")
    a100.work()
    assert len(a100.there()) == 1
    a100.now += 6
    a100.work()
    assert a100.there() == {}


def test_an_instance_whose_processes_nobody_tells_stays(a100):
    """It counts as used."""
    a100.pods(a=4500)
    a100.delete("a")
    a100.now += 31
    a100.driver.command("fail", "nvmlDeviceGetComputeRunningProcesses_v3", "1", "999")
    a100.work()
    assert len(a100.there()) == 1
    a100.work()
    a100.now += 31
    a100.work()
    assert a100.there() == {}
