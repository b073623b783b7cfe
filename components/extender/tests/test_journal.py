"""What changed since somebody looked."""

from hypothesis import given
from hypothesis import strategies as st

from hami_extender.journal import Journal


def test_each_change_is_told_once_to_everybody():
    """From the position that the reader remembers."""
    journal = Journal()
    for name in "aba":
        journal.add(name)
    assert list(journal.since(0)) == ["a", "b"]
    assert list(journal.since(1)) == ["b", "a"]
    assert list(journal.since(journal.position)) == []


@given(st.integers(1, 8), st.lists(st.sampled_from("abc"), max_size=40), st.integers(0, 40))
def test_a_reader_hears_everything_or_that_it_does_not(kept, names, position):
    """Whatever is forgotten, no change is silently left out, and not much is kept."""
    journal = Journal(kept)
    for name in names:
        journal.add(name)
    assert journal.position == len(names)
    told = journal.since(position)
    if told is not None:
        assert list(told) == list(dict.fromkeys(names[position:]))
    assert journal.since(max(len(names) - kept // 2, 0)) is not None
