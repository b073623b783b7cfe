"""Whether kubelet remembers this plugin."""

import pytest

from hami_device_plugin.afresh import Forgotten
from hami_device_plugin.stock import Memory
from hamikit import names
from hamikit.objects import Node, NodeStatus


def offering(count):
    """A node that offers so many slots."""
    return Node(status=NodeStatus(allocatable={names.RESOURCE_COUNT: count}))


def looks(now, *seen, offers=True):
    """Look at what a watch told, one after the other; `now` is what the API server says."""
    memory = Memory(names.RESOURCE_COUNT, lambda: now)
    for node in seen:
        memory.check(node, offers=offers)


def test_starts_afresh_when_the_node_offers_nothing_for_two_looks():
    """Once is no proof: kubelet tells of a new plugin some seconds after it has come."""
    looks(offering("0"), offering("0"))
    with pytest.raises(Forgotten, match=r"offers no nvidia\.com/gpu"):
        looks(offering("0"), offering("0"), offering("0"))


@pytest.mark.parametrize("now", [None, offering("10")], ids=["no answer", "newer"])
def test_what_a_watch_told_before_an_outage_is_no_proof(now):
    """It told of the node before kubelet listened, and then nothing for as long as it was away."""
    looks(now, *[offering("0")] * 4)


def test_looks_in_between_begin_anew():
    """A node that offers slots, and a plugin that kubelet does not hear, have forgotten nothing."""
    looks(offering("0"), offering("0"), offering("3"), offering("0"))
    looks(offering("0"), Node(), Node(), Node())
    looks(offering("0"), *[offering("0")] * 4, offers=False)
