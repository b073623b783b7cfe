"""What a container takes of a node's cards."""

from mig_cards import A30

from hami_extender.cards import Cards, charge, choices, devices_of
from hami_extender.inventory import Card
from hami_extender.partition import Partition
from hamikit.footprint import NOTHING, Share
from hamikit.instances import Placement
from hamikit.shape import ContainerRequest


def node(partition=None, profiles=()):
    """A node of one card of 24,576 MiB that holds nothing."""
    card = Card("a", 0, 10, 24576, 100, "NVIDIA", 0, "hami-core", True, profiles=profiles)
    parts = {} if partition is None else {0: partition}
    return Cards((card,), (NOTHING,), frozenset(), "NVIDIA", partitions=parts)


REQUEST = ContainerRequest(count=1, memory_mib=5000, memory_percent=0, cores=10)


def test_a_card_that_holds_what_nobody_knows_has_no_instance_to_give():
    """MIG divides it, but where its instances are cannot be told: there is no choice at all."""
    assert choices(node(profiles=A30), 0, REQUEST, 1) == []


def test_an_init_container_leaves_the_card_as_it_was():
    """What comes after it finds all of the card, what comes after another container does not."""
    assert charge(node(), REQUEST, (0,), passing=True).used == [NOTHING]
    assert charge(node(), REQUEST, (0,), passing=False).used == [Share(1, 5000, 10)]


def test_twice_the_same_card_counts_twice():
    """Two slices of one card are two tasks on it."""
    assert charge(node(), REQUEST, (0, 0), passing=False).used == [Share(2, 10000, 20)]


def test_a_whole_divided_card_is_its_largest_profile():
    """It has a little less than the card, and is what all of the card's memory gets."""
    whole = node(Partition(A30), profiles=A30)
    request = ContainerRequest(count=1, memory_mib=0, memory_percent=100, cores=0)
    (device,) = devices_of(whole, request, (0,))
    assert device.instance is not None
    assert device.instance.profile == "4g.24gb"
    assert device.instance.placement == Placement(0, 4)
