"""What a pod takes of a card at its worst moment."""

from hypothesis import given
from hypothesis import strategies as st

from hamikit.footprint import NOTHING, Share, footprint, share_of
from hamikit.shape import Role

SHARES = st.builds(share_of, st.integers(0, 50), st.integers(0, 100))
CONTAINERS = st.lists(
    st.tuples(st.sampled_from(Role), st.dictionaries(st.sampled_from("ab"), SHARES)), max_size=6
)


def mib(role, memory):
    """A container with so much of card a."""
    return role, {"a": share_of(memory, 0)}


def test_the_peak_of_a_pod():
    """Init containers run one by one beside earlier sidecars, then all apps beside all sidecars."""
    side, late = mib(Role.SIDECAR, 10), mib(Role.SIDECAR, 5)
    init, big = mib(Role.INIT, 30), mib(Role.INIT, 60)
    apps = [mib(Role.APP, 20), mib(Role.APP, 20)]
    assert footprint([side, init, late, *apps]) == {"a": Share(4, 55)}
    assert footprint([side, big, late, *apps]) == {"a": Share(4, 70)}


def test_each_part_has_its_own_worst_moment():
    """An init container may need more memory and the apps more compute."""
    init, app = (Role.INIT, {"a": share_of(90, 10)}), (Role.APP, {"a": share_of(10, 100)})
    assert footprint([init, app]) == {"a": Share(1, 90, 100, 1)}


@given(CONTAINERS)
def test_a_footprint_is_what_a_replay_of_the_pods_life_shows(containers):
    """Start the containers as kubelet does and keep the largest sum."""
    moments, running = [], []
    for role, own in containers:
        if role is not Role.APP:
            moments.append([*running, own])
        if role is Role.SIDECAR:
            running.append(own)
    moments.append([*running, *(own for role, own in containers if role is Role.APP)])
    for card in "ab":
        sums = [sum((own.get(card, NOTHING) for own in m), NOTHING) for m in moments]
        most = NOTHING
        for at_once in sums:
            most = most.peak(at_once)
        assert footprint(containers).get(card, NOTHING) == most
