"""How reasons are shortened."""

from hypothesis import given
from hypothesis import strategies as st

from hami_extender import fit
from hami_extender.texts import REST, few, words_of

WORDS = (fit.MEMORY_SHORT, fit.CORES_SHORT, fit.NOT_HEALTHY, fit.CORDONED, fit.TYPE_MISMATCH)


def test_words():
    """A text of cards has several, any other is one."""
    assert words_of("1/4 CardCordoned, 13/16 CardNotHealth") == ["CardCordoned", "CardNotHealth"]
    assert words_of("node unregistered") == ["node unregistered"]


def test_few_texts_stay_as_they_are():
    """HAMi's form, with its numbers, where that is short enough."""
    reasons = {f"n{i}": f"{i % 3}/8 CardNotHealth" for i in range(100)}
    assert few(reasons) == reasons


def test_numbers_go_first_then_the_lesser_reasons():
    """Each step loses as little as it can."""
    reasons = {f"n{i}": f"{i}/90 CardNotHealth, {90 - i}/90 CardCordoned" for i in range(1, 90)}
    assert set(few(reasons).values()) == {"CardNotHealth, CardCordoned"}
    assert few(reasons, limit=2)["n1"] == "CardNotHealth, CardCordoned"
    assert few({"a": "1/4 X, 3/4 Y", "b": "4/4 Y", "c": "1/4 Z, 3/4 Y"}, limit=1) == dict.fromkeys(
        "abc", "Y"
    )


def test_the_rarest_share_one():
    """Where even words are too many, the frequent ones stay."""
    reasons = {"a": "P", "b": "P", "c": "Q", "d": "Q", "e": "R", "f": "S"}
    assert few(reasons, limit=3) == {
        "a": "P",
        "b": "P",
        "c": "Q",
        "d": "Q",
        "e": REST,
        "f": REST,
    }


PIECE = st.tuples(st.integers(1, 16), st.sampled_from(WORDS)).map(lambda p: f"{p[0]}/16 {p[1]}")
TEXT = st.lists(PIECE, min_size=1, max_size=4, unique_by=lambda p: p.split()[1]).map(
    lambda pieces: ", ".join(sorted(pieces))
)


@given(st.dictionaries(st.text("abc", max_size=4), TEXT), st.integers(1, 6))
def test_never_more_than_the_limit(reasons, limit):
    """Every node has a text, made of its own words, or the common rest."""
    texts = few(reasons, limit)
    assert texts.keys() == reasons.keys()
    assert len(set(texts.values())) <= limit
    for node, text in texts.items():
        said = text.split(", ") if "/16 " not in text else words_of(text)
        assert text == REST or set(said) <= set(words_of(reasons[node]))
