"""Behaviour of hami_webhook.conditions: the CEL text of the registration."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hami_webhook.conditions import also, match_condition, named, same
from hamikit.devices import NVIDIA


def test_golden():
    """The form that was tried on a real API server, with HAMi's names."""
    assert match_condition((NVIDIA,)) == (
        "(object.spec.?containers.orValue([]) + object.spec.?initContainers.orValue([]))"
        ".exists(c, ['nvidia.com/gpu', 'nvidia.com/gpumem', 'nvidia.com/gpumem-percentage', "
        "'nvidia.com/gpucores', 'nvidia.com/priority']"
        ".exists(r, r in c.?resources.?limits.orValue({}) || "
        "r in c.?resources.?requests.orValue({})))"
    )


def test_names_are_the_configured_ones():
    """Quoted so that a name cannot end the literal."""
    family = replace(NVIDIA, count="a'b", memory="", memory_percentage="", cores="", priority="")
    assert "['a\\'b'].exists(" in match_condition((family,))


WORDS = st.lists(st.text("abc/.'\\-", min_size=1), min_size=1, max_size=4, unique=True)


@given(WORDS, WORDS, st.randoms())
def test_names_are_read_back_and_added(own, more, rng):
    """In any order and however a manifest folds it; for one name less it is another condition."""
    family = replace(NVIDIA, memory="", memory_percentage="", cores="", priority="")
    condition = match_condition([replace(family, count=name) for name in own])
    longer = also(condition, more)
    assert named(condition) == tuple(own)
    assert named(longer) == (*own, *more)
    shuffled = [*own, *more]
    rng.shuffle(shuffled)
    other = match_condition([replace(family, count=name) for name in shuffled])
    assert same(longer, other.replace(" ", "\n  "))
    assert same(longer, condition) == (set(more) <= set(own))
    assert not same(longer, f"!{longer}")


def test_a_condition_of_another_form_has_no_names():
    """It is the operator's, or of a later version."""
    assert named("object.metadata.name == 'x'") == ()
    assert also("true", ["a"]) == "true"
