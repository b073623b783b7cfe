"""Whether cards can carry what was promised on them."""

from hypothesis import given
from hypothesis import strategies as st

from hami_device_plugin.grant import ContainerGrant, PodGrant, Slice
from hami_device_plugin.invariant import excess, peak
from hamikit.codec import RegisteredDevice
from hamikit.footprint import Share
from hamikit.shape import Role

CARDS = {"a": RegisteredDevice(id="a", count=10, devmem=100, devcore=100)}


def container(role, memory, cores=0, uuid="a"):
    """A container with one slice."""
    return ContainerGrant("c", role, (Slice(uuid, memory, cores),))


def pod(uid, *containers):
    """A pod's grant."""
    return PodGrant(uid, "ns", f"pod-{uid}", "", containers)


def test_what_fits_exactly_fits():
    """The card may be full."""
    assert (
        excess(pod("1", container(Role.APP, 40)), [pod("2", container(Role.APP, 60))], CARDS)
        is None
    )


def test_too_much_is_named_with_its_holders():
    """Memory and compute alike."""
    other = pod("2", container(Role.APP, 60, 80))
    found = excess(pod("1", container(Role.APP, 41)), [other], CARDS)
    assert str(found) == (
        "card a: 41 MiB more than fit beside the 60 of 100 that ns/pod-2 still hold"
    )
    found = excess(pod("1", container(Role.APP, 1, 21)), [other], CARDS)
    assert (found.what, found.held, found.wanted) == ("percent", 80, 21)


def test_as_many_tasks_as_the_card_is_split_for():
    """The eleventh is refused, however little it asks for."""
    others = [pod(str(number), container(Role.APP, 1)) for number in range(10)]
    found = excess(pod("new", container(Role.APP, 1)), others, CARDS)
    assert (found.what, found.held, found.wanted) == ("tasks", 10, 1)


def test_a_card_of_its_own():
    """100 percent is a whole card at any core scaling, and nobody else's beside it."""
    half = {"a": RegisteredDevice(id="a", count=10, devmem=100, devcore=50)}
    alone, small = pod("1", container(Role.APP, 1, 100)), pod("2", container(Role.APP, 1, 0))
    assert excess(alone, [], half) is None
    assert excess(alone, [small], half).what == "percent"
    assert excess(small, [alone], half).what == "percent"


def test_what_can_never_fit_is_told_so():
    """To wait for it would be to wait for ever."""
    found = excess(pod("1", container(Role.APP, 101)), [], CARDS)
    assert str(found) == (
        "card a has 100 MiB and can never give 101; delete the pod, so that it is scheduled anew"
    )


def test_a_pod_does_not_compete_with_itself():
    """Its own earlier account is not counted twice."""
    same = pod("1", container(Role.APP, 100))
    assert excess(same, [same], CARDS) is None


ROLES = st.sampled_from(Role)
CONTAINERS = st.builds(container, ROLES, st.integers(0, 50), st.integers(0, 50))


@given(st.lists(st.lists(CONTAINERS, max_size=4), max_size=6))
def test_admitted_one_by_one_a_card_never_overflows(pods):
    """Whatever comes in whatever order, the sum of the peaks stays within the card."""
    admitted = []
    for number, containers in enumerate(pods):
        candidate = pod(str(number), *containers)
        if excess(candidate, admitted, CARDS) is None:
            admitted.append(candidate)
    loads = [peak(grant.containers).get("a", Share()) for grant in admitted]
    assert sum(load.memory_mib for load in loads) <= 100
    assert sum(load.cores for load in loads) <= 100
    assert sum(load.slots for load in loads) <= 10


@given(st.lists(CONTAINERS, max_size=6))
def test_a_peak_lies_between_the_largest_and_the_sum(containers):
    """Never less than any one container, never more than all together."""
    most = peak(containers).get("a", Share()).memory_mib
    single = [c.slices[0].memory_mib for c in containers]
    assert max(single, default=0) <= most <= sum(single)


def test_instances_of_a_divided_card_may_add_up_to_more_than_all_of_it():
    """Seven sevenths, each rounded up; memory and tasks are bounded as ever."""
    cards = {"a": RegisteredDevice(id="a", count=10, devmem=100, devcore=100, mode="mig")}
    others = [pod(str(n), container(Role.APP, 14, 15)) for n in range(6)]
    assert excess(pod("7", container(Role.APP, 14, 15)), others, cards) is None
    found = excess(pod("7", container(Role.APP, 17, 15)), others, cards)
    assert found is not None
    assert (found.what, found.held) == ("MiB", 84)
