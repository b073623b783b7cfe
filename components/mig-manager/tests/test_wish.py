"""What config.json says of a node's mode."""

import json

import pytest

from hami_mig_manager.state import Card
from hami_mig_manager.wish import Wish, load_wish, wish_of
from hamikit.deviceconfig import ConfigError


def config(*entries):
    """A config.json."""
    return json.dumps({"nodeconfig": list(entries)})


@pytest.mark.parametrize(
    ("entries", "divided"),
    [
        ([], None),
        ([{"name": "n"}], None),
        ([{"name": "n", "operatingmode": "mig"}], True),
        ([{"name": "n", "OperatingMode": "hami-core"}], False),
        ([{"name": "other", "operatingmode": "mig"}], None),
        ([{"name": "n", "operatingmode": "mig"}, {"name": "n", "operatingmode": ""}], None),
    ],
)
def test_the_mode_of_a_node(entries, divided):
    """Nobody's word is no wish: the cards stay as they are."""
    assert wish_of(config(*entries), "n").of(Card("GPU-a")) is divided


def test_cards_that_are_left_alone():
    """By UUID or index, as the device plugin leaves them alone."""
    hidden = {"uuid": ["GPU-b"], "index": [2]}
    wish = wish_of(config({"name": "n", "operatingmode": "mig", "filterdevices": hidden}), "n")
    cards = [Card("GPU-a", 0), Card("GPU-b", 1), Card("GPU-c", 2)]
    assert [wish.of(card) for card in cards] == [True, None, None]


def test_a_mode_that_pods_decide():
    """No card has to change then, and those that are left alone may not."""
    hidden = {"uuid": ["GPU-b"]}
    wish = wish_of(config({"name": "n", "operatingmode": "auto", "filterdevices": hidden}), "n")
    cards = [Card("GPU-a", 0), Card("GPU-b", 1)]
    assert [wish.of(card) for card in cards] == [None, None]
    assert [wish.leaves_open(card) for card in cards] == [True, False]
    assert not wish_of(config({"name": "n", "operatingmode": "mig"}), "n").leaves_open(cards[0])


def test_a_file_that_is_not_there_says_nothing(tmp_path):
    """The ConfigMap is optional."""
    assert load_wish(None, "n") == load_wish(tmp_path / "none", "n") == Wish()


@pytest.mark.parametrize(
    "text", ["{", "[]", config({"name": "n", "operatingmode": "MIG"}), '{"nodeconfig": 3}']
)
def test_what_cannot_be_used_is_told(text, tmp_path):
    """A mode that there is not, or another form."""
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_wish(path, "n")
