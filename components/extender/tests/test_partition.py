"""Where MIG instances are made on one card."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mig_cards import A30, A100_40, CARDS, HAMI_A100_40, TABLES, profile

from hami_extender.partition import Partition, room
from hamikit.instances import Placement


def made(partition, *requests):
    """Names and starts of the instances that these requests get, one after the other."""
    found = []
    for memory in requests:
        choices = partition.choices(memory, 1)
        found += [(p.name, place.start) for p, place in choices]
        partition = partition.after(choices, passing=False)
    return found


def states(profiles):
    """Every way in which a card can be occupied, by the places alone."""
    everything = {place for p in profiles for place in p.placements}
    found, fresh = {frozenset()}, [frozenset()]
    while fresh:
        state = fresh.pop()
        for place in everything:
            if not any(place.overlaps(other) for other in state):
                more = state | {place}
                if more not in found:
                    found.add(more)
                    fresh.append(more)
    return found


def free(profile_, taken):
    """Where a profile can be made, the obvious way."""
    used = {n for place in taken for n in range(place.start, place.start + place.size)}
    return [p for p in profile_.placements if not used & set(range(p.start, p.start + p.size))]


def largest(profiles, taken):
    """Memory of the largest instance that can still be made."""
    return max((p.memory_mib for p in profiles if free(p, taken)), default=0)


def test_the_order_that_hami_documents():
    """On an empty A100 of 40 GB: 3g from 4, 2g from 0, 1g from 3, then from 2, then nothing."""
    found = made(Partition(HAMI_A100_40), 19000, 9500, 4500, 4500, 4500)
    assert found == [("3g.20gb", 4), ("2g.10gb", 0), ("1g.5gb", 3), ("1g.5gb", 2)]


def test_the_tables_of_tests_and_simulated_driver_agree():
    """Every model of the issue is there, and what HAMi's lists have of it is NVIDIA's."""
    places = {
        name: {p.name: (p.slices, p.placements) for p in profiles}
        for name, profiles in TABLES.items()
    }
    models = ("A30", "A100-SXM4-40", "A100-SXM4-80", "H100", "H200", "B200", "RTX PRO 6000")
    for key, model in zip(CARDS, ("A30", *models[1:]), strict=True):
        [found] = [table for name, table in places.items() if model in name]
        plain = {p.name: (p.slices, p.placements) for p in CARDS[key]}
        assert plain == {n: found[n] for n in found if "+" not in n and "-" not in n}


@pytest.mark.parametrize(("name", "profiles"), [*CARDS.items(), *TABLES.items()])
def test_in_every_state_of_a_card(name, profiles):
    """The smallest profile that can be made, where the largest one left stays largest."""
    for state in states(profiles):
        taken = tuple(state)
        for asked in {p.memory_mib for p in profiles} | {1}:
            able = [p for p in profiles if p.memory_mib >= asked and free(p, taken)]
            found = Partition(profiles, taken).choices(asked, 1)
            if not able:
                assert found == [], (name, taken)
                continue
            ((chosen, place),) = found
            assert chosen.memory_mib == min(p.memory_mib for p in able)
            assert place in free(chosen, taken)
            assert not set("+-") & set(chosen.name), "a variant where the plain profile would do"
            after = [largest(profiles, (*taken, p)) for p in free(chosen, taken)]
            assert largest(profiles, (*taken, place)) == max(after), (name, taken, chosen.name)


@pytest.mark.parametrize(("profiles", "name", "number"), [
    (A30, "1g.6gb", 4), (A30, "2g.12gb", 2), (A100_40, "1g.5gb", 7), (A100_40, "3g.20gb", 2),
    (HAMI_A100_40, "2g.10gb", 3), (A100_40, "7g.40gb", 1),
])  # fmt: skip
def test_as_many_as_nvidia_says(profiles, name, number):
    """One profile fills the card to the number of instances that its table gives."""
    memory = next(p.memory_mib for p in profiles if p.name == name)
    choices = Partition(profiles).choices(memory, 100)
    assert [p.name for p, _ in choices] == [name] * number


def test_a_larger_profile_serves_where_the_smaller_has_no_place():
    """Slices 0 to 6 of an A100 are taken by 2g and 3g but for a hole where only 3g goes."""
    profiles = (profile("1g.5gb", 4864, 15, 1, 0, size=1), *HAMI_A100_40[1:])
    taken = (Placement(0, 4),)
    assert made(Partition(profiles, taken), 4500) == [("2g.10gb", 4)]


def test_of_one_memory_the_fewest_compute_slices():
    """1g.10gb and 2g.10gb have the same memory."""
    assert made(Partition(A100_40), 9500)[0][0] == "1g.10gb"


def test_of_equal_profiles_the_plain_one():
    """Whatever order a node announces them in; there is one +me of a card at most."""
    variants = [profile(name, 4864, 15, 1, 0, 1, size=1) for name in ("1g.5gb+me", "1g.5gb")]
    for profiles in (variants, variants[::-1]):
        assert made(Partition(tuple(profiles)), 4500) == [("1g.5gb", 1)]


def test_an_init_containers_instance_serves_later_containers():
    """It stays until the pod ends, so the same profile is taken again, and nothing across it."""
    card = Partition(A30)
    first = card.choices(5000, 1)
    card = card.after(first, passing=True)
    assert card.choices(5000, 1) == first
    second = card.choices(11000, 2)
    assert [place.start for _, place in second] == [0]
    card = card.after(card.choices(5000, 1), passing=False)
    assert card.choices(5000, 1) != first
    assert card.spent == ()


def test_two_at_a_time_are_two_instances():
    """One container never gets the same instance twice, even of those that init ones used."""
    card = Partition(A30).after(Partition(A30).choices(5000, 1), passing=True)
    assert len({place for _, place in card.choices(5000, 4)}) == 4
    assert card.after(card.choices(5000, 2), passing=True).spent.__len__() == 2


def test_room():
    """Instances side by side, of the largest profile first."""
    assert room(A30, ()) == (1, 2, 4)
    assert room(A30, (Placement(1, 1),)) == (0, 1, 3)
    assert Partition(A30, (Placement(1, 1),)).largest_mib == 11968
    assert Partition(A30, (Placement(0, 4),)).largest_mib == 0


@pytest.mark.parametrize("profiles", [A30, A100_40])
def test_what_an_instance_costs_a_card(profiles):
    """Its memory, then what can be made no more beside it, of the largest profile first."""
    for state in states(profiles):
        card = Partition(profiles, tuple(state))
        for memory in {p.memory_mib for p in profiles}:
            choices = card.choices(memory, 1)
            if not choices:
                assert card.loss(memory) is None
                continue
            ((chosen, place),) = choices
            before, after = room(profiles, card.taken), room(profiles, (*card.taken, place))
            lost = [b - a for b, a in zip(before, after, strict=True)]
            assert card.loss(memory) == (chosen.memory_mib, *lost)


@given(st.data())
def test_what_is_made_never_overlaps(data):
    """Whatever is asked for and given back, in any order."""
    profiles = data.draw(st.sampled_from(list(CARDS.values())))
    held = []
    for _ in range(data.draw(st.integers(1, 12))):
        if held and data.draw(st.booleans()):
            held.pop(data.draw(st.integers(0, len(held) - 1)))
        asked = data.draw(st.sampled_from([p.memory_mib for p in profiles]))
        held += [place for _, place in Partition(profiles, tuple(held)).choices(asked, 2)]
        slices = [n for place in held for n in range(place.start, place.start + place.size)]
        assert len(slices) == len(set(slices))


def test_equal_places_go_in_hamis_order():
    """Where nothing else is to be made, 1g and 3g begin at the end of the card, others in front."""
    for name, start in (("1g.5gb", 4), ("3g.20gb", 4), ("2g.10gb", 0), ("4g.20gb", 0)):
        only = profile(name, 4864, 15, 1, 0, 4, size=4)
        assert made(Partition((only,)), 4500) == [(name, start)]


def test_places_of_one_profile_may_overlap():
    """Of four that begin at each slice and take two only two go side by side."""
    assert room((profile("2g", 1, 1, 2, 3, 1, 0, 2, size=2),), ()) == (2,)
