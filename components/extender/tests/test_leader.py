"""Only the leader's extender binds, and only once its predecessor's last write has ended."""

from datetime import UTC, datetime

import msgspec
import pytest

from hami_extender.leader import NOT_LEADING, TAKING_OVER, Leadership
from hamikit.informer import Change
from hamikit.objects import Lease


class World:
    """A leadership with two clocks; `lease` tells a new form of the Lease."""

    def __init__(self):
        self.mono, self.wall, self.caught_up = 1000.0, 1787293239.0, True
        self.leader = Leadership(
            "pod-1",
            caught_up=lambda: self.caught_up,
            now=lambda: self.mono,
            clock=lambda: self.wall,
        )

    def lease(self, holder="pod-1_uuid", acquired="a", age=0.0):
        """The Lease, renewed `age` seconds ago."""
        renewed = datetime.fromtimestamp(self.wall - age, UTC).isoformat().replace("+00:00", "Z")
        spec = {"holderIdentity": holder, "renewTime": renewed, "acquireTime": acquired}
        self.leader.on_lease(Change(None, msgspec.convert({"spec": spec}, Lease)))

    def later(self, seconds):
        """Both clocks move."""
        self.mono += seconds
        self.wall += seconds

    def settled(self):
        """We lead and have waited."""
        self.lease()
        self.later(4)
        self.lease()
        assert self.leader.missing() == ""
        return self


def test_a_new_leader_waits_for_its_predecessors_last_write():
    """Four seconds after the lease changed hands, and after a fresh list is known."""
    world = World()
    assert world.leader.missing() == NOT_LEADING
    world.lease()
    assert world.leader.missing() == TAKING_OVER
    world.later(3.9)
    assert world.leader.missing() == TAKING_OVER
    world.later(0.1)
    world.caught_up = False
    assert world.leader.missing() == TAKING_OVER
    world.caught_up = True
    assert not world.leader.settled()
    assert world.leader.missing() == ""
    assert world.leader.settled()
    world.caught_up = False
    assert world.leader.missing() == ""


@pytest.mark.parametrize("holder", ["pod-10_uuid", "pod-2_uuid", "pod-1", ""])
def test_anothers_lease(holder):
    """The host name is compared up to its underscore (HAMi 8.26)."""
    world = World().settled()
    world.lease(holder)
    assert world.leader.missing() == NOT_LEADING


def test_a_lease_that_is_not_renewed():
    """Ten seconds after the stamp our kube-scheduler has given up, whatever the watch says."""
    world = World().settled()
    world.later(9.9)
    assert world.leader.missing() == ""
    world.later(0.1)
    assert world.leader.missing() == NOT_LEADING
    world.lease()
    assert world.leader.missing() == ""


def test_an_old_stamp_seen_late():
    """What counts is when it was written, not when we saw it."""
    world = World().settled()
    world.later(5)
    world.lease(age=4.5)
    world.later(5.5)
    assert world.leader.missing() == NOT_LEADING


def test_a_stepped_clock_never_lengthens_the_lease():
    """A stamp from the future counts as now."""
    world = World().settled()
    world.lease(age=-3600)
    world.later(10)
    assert world.leader.missing() == NOT_LEADING


def test_a_term_in_between_is_noticed_by_the_time_of_taking():
    """We may have missed that another led for a while."""
    world = World().settled()
    world.lease(acquired="b")
    assert world.leader.missing() == TAKING_OVER


def test_a_term_that_ends_during_the_look_at_the_cluster():
    """What was caught up with then says nothing about the next term."""
    world = World()
    world.lease()
    world.later(4)
    world.lease()

    def overtaken():
        world.lease(acquired="b")
        return True

    world.leader._caught_up = overtaken
    assert world.leader.missing() == TAKING_OVER
    assert world.leader.missing() == TAKING_OVER


def test_a_lease_that_is_gone_or_makes_no_sense():
    """Nothing is bound."""
    world = World().settled()
    world.leader.on_lease(Change(msgspec.convert({}, Lease), None))
    assert world.leader.missing() == NOT_LEADING
    world.lease()
    world.leader.on_lease(
        Change(
            None, msgspec.convert({"spec": {"holderIdentity": "pod-1_u", "renewTime": "?"}}, Lease)
        )
    )
    assert world.leader.missing() == NOT_LEADING
