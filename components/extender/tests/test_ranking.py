"""Nodes in order, however they change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami_extender.ranking import Ranking

changes = st.lists(
    st.tuples(st.sampled_from("abcd"), st.none() | st.sampled_from([0.0, 1.5, 3.0])), max_size=20
)


@pytest.mark.parametrize(("policy", "sign"), [("spread", 1), ("binpack", -1), ("else", -1)])
@given(start=st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.0, 2.0])), steps=changes)
def test_the_order_is_always_that_of_the_scores(policy, sign, start, steps):
    """The emptiest or the fullest first, equal ones by name."""
    ranking, scores = Ranking(policy, start), dict(start)
    for name, score in steps:
        if score is None:
            scores.pop(name, None)
            ranking.remove(name)
        else:
            scores[name] = score
            ranking.put(name, score)
        assert list(ranking.among(set("abcd"), scores)) == sorted(
            scores, key=lambda n: (sign * scores[n], n)
        )


@given(
    asked=st.sets(st.integers(0, 200).map(str)),
    fitting=st.sets(st.integers(0, 199)),
    scores=st.lists(st.sampled_from([0.0, 1.5, 3.0]), max_size=200),
    policy=st.sampled_from(["spread", "binpack"]),
)
def test_few_of_many_and_most_of_few_come_in_the_same_order(asked, fitting, scores, policy):
    """However they are found; who is not asked about or does not fit is left out."""
    known = {str(number): score for number, score in enumerate(scores)}
    fitting = {str(n): known[str(n)] for n in fitting if str(n) in known}
    sign = 1 if policy == "spread" else -1
    wanted = sorted(asked & fitting.keys(), key=lambda n: (sign * known[n], n))
    assert list(Ranking(policy, known).among(dict.fromkeys(asked), fitting)) == wanted
