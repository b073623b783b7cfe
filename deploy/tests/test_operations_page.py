"""The commands of docs/operations.md are those that the tests run."""

import re
from pathlib import Path

import pytest

from e2e.procedures import PAGE, blocks, filled

TESTS = Path(__file__).parents[2] / "e2e"


def test_every_block_of_the_page_is_run_by_a_test():
    """A command that nobody runs is a command that nobody knows to work."""
    followed = set()
    for path in TESTS.glob("test_*.py"):
        followed |= set(re.findall(r'follow\(kube, "([a-z-]+)"', path.read_text(encoding="utf-8")))
    page = PAGE.read_text(encoding="utf-8")
    assert followed == set(blocks(page))
    assert re.findall(r"^```sh$", page, re.MULTILINE) == []


def test_words_in_capitals_are_replaced_and_none_is_forgotten():
    """An unknown word would reach the cluster as it is."""
    assert filled("kubectl drain NODE -A\n", NODE="n1") == "kubectl drain n1 -A\n"
    for names in ({}, {"NODE": "n", "MORE": "x"}):
        with pytest.raises(ValueError, match="names are needed"):
            filled("kubectl drain NODE\n", **names)


def test_two_blocks_of_one_name_are_a_mistake():
    """Which of them would be run?"""
    with pytest.raises(ValueError, match="two blocks"):
        blocks("```sh a\nx\n```\n```sh a\ny\n```\n")
