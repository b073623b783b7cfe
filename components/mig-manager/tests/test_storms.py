"""Whatever happens in whatever order: nothing in use is destroyed, and all comes to rest."""

import pynvml
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from mig_world import A100, GPU, Crash, World, spot

from hami_mig_manager.journal import decode_journal
from hami_mig_manager.state import Spot
from hami_mig_manager.view import place
from hamikit.mig import decode_blocked

PLACES = [Spot(GPU, p.name, place.start, place.size) for p in A100 for place in p.placements]
CODES = (
    pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES,
    pynvml.NVML_ERROR_IN_USE,
    pynvml.NVML_ERROR_UNKNOWN,
    pynvml.NVML_ERROR_TIMEOUT,
)


class Node(RuleBasedStateMachine):
    """One card; pods, hands, faults, kills and time in any order."""

    def __init__(self):
        super().__init__()
        self.world = World()
        self.manager = self.world.manager()
        self.pods = 0

    def work(self):
        """Let the manager work; killed, it starts anew with an empty memory."""
        while True:
            try:
                return self.manager.settle()
            except Crash:
                self.world.dies_at = None
                self.manager = self.world.manager()

    @rule(data=st.data())
    def pod_is_bound(self, data):
        """The scheduler takes a place that no pod and no block needs."""
        world = self.world
        taken = [world_spot(a) for c in world.claims.values() for a in c.allocations]
        taken += [place(b) for b in decode_blocked(world.annotations.get("blocked") or "")]
        free = [p for p in PLACES if not any(p.overlaps(other) for other in taken)]
        if free:
            self.pods += 1
            world.bind(f"p{self.pods}", data.draw(st.sampled_from(free)))

    @rule(data=st.data())
    def pod_starts(self, data):
        """A process of a pod uses its instance."""
        told = [u for uid in self.world.claims for u in self.world.uuids(uid) if u]
        there = {i.uuid for i in self.world.there().values()}
        if told := [uuid for uuid in told if uuid in there]:
            self.world.using.add(data.draw(st.sampled_from(told)))

    @rule(data=st.data(), process=st.booleans(), container=st.booleans())
    def pod_goes(self, data, process, container):
        """From the API server; a process or container of it may outlive that."""
        if not self.world.claims:
            return
        uid = data.draw(st.sampled_from(sorted(self.world.claims)))
        if not process:
            self.world.using.difference_update(self.world.uuids(uid))
        if container:
            self.world.lingering.add(uid)
        self.world.gone(uid)

    @rule(data=st.data())
    def pod_is_deleted(self, data):
        """It is on its way."""
        if self.world.claims:
            self.world.end(data.draw(st.sampled_from(sorted(self.world.claims))))

    @rule()
    def all_ends_that_lingers(self):
        """What outlived its pod."""
        self.world.lingering.clear()
        held = {u for uid in self.world.claims for u in self.world.uuids(uid)}
        self.world.using &= held

    @rule(where=st.sampled_from(PLACES))
    def hand_makes(self, where):
        """An instance that is not ours."""
        if not any(i.overlaps(where) for i in self.world.there()):
            self.work()  # what somebody makes at the place of an intent looks like ours
            if not any(i.overlaps(where) for i in self.world.there()):
                self.world.by_hand(where)

    @precondition(lambda self: self.world.foreign)
    @rule(data=st.data())
    def hand_destroys(self, data):
        """Its own instance."""
        where = data.draw(st.sampled_from(sorted(self.world.foreign)))
        self.world.foreign.discard(where)
        self.world._remove(where)

    @rule(
        what=st.sampled_from(["create", "compute", "destroy", "destroy-gi"]),
        code=st.sampled_from(CODES),
    )
    def driver_fails(self, what, code):
        """The next such call."""
        self.world.faults.setdefault(what, []).append(code)

    @rule(calls=st.integers(1, 12))
    def is_killed_soon(self, calls):
        """At this call from now."""
        self.world.dies_at = self.world.calls + calls

    @rule()
    def restarts(self):
        """With an empty memory."""
        self.manager = self.world.manager()

    @rule(seconds=st.sampled_from([0.3, 2.0, 31.0, 61.0, 301.0]))
    def time_passes(self, seconds):
        """And the manager looks."""
        self.world.now += seconds
        self.work()

    @rule()
    def looks(self):
        """Something told it to."""
        self.work()

    @invariant()
    def records_tell_the_truth_or_the_instance_is_being_made_again(self):
        """Two pods never have one instance."""
        told = [u for uid in self.world.claims for u in set(self.world.uuids(uid)) if u]
        assert len(told) == len(set(told))

    def teardown(self):
        """Without more trouble every pod is served or sent away, and nothing is left over."""
        world = self.world
        world.faults.clear()
        world.dies_at = None
        world.lingering.clear()
        world.using.clear()
        for _ in range(8):
            self.work()
            world.now += 61
        for claim in list(world.claims.values()):
            served = all(a.mig_uuid for a in claim.allocations)
            assert claim.ending or served, f"{claim.uid} is stuck"
            if claim.ending:
                world.gone(claim.uid)
        for _ in range(8):
            self.work()
            world.now += 61
        held = {world_spot(a) for c in world.claims.values() for a in c.allocations}
        assert set(world.there()) == held | world.foreign
        assert {e.spot for e in decode_journal(world.annotations.get("journal") or "")} == held
        self.manager = world.manager()
        version = world.version
        self.work()
        assert world.version == version, "no rest"


def world_spot(allocation):
    """Where an allocation is."""
    return spot(allocation.profile, allocation.placement.start)


TestNode = Node.TestCase
TestNode.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
