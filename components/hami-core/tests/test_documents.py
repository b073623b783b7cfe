"""What the documents say is shown is a test that exists."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize("document", ["README.md", "../README.md"])
def test_every_named_test_exists(document):
    """A row that names a test that was renamed shows nothing."""
    named = set(re.findall(r"`(test_\w+\.py)::(\w+)", (TESTS / document).read_text()))
    assert len(named) > 10
    missing = [row for row in named if f"def {row[1]}(" not in (TESTS / row[0]).read_text()]
    assert missing == []


@pytest.mark.parametrize(("letter", "count"), [("T", 12), ("R", 9), ("M", 14), ("P", 9)])
def test_every_requirement_has_its_row(letter, count):
    """With a test, or with what is missing."""
    rows = re.findall(rf"^\| {letter}(\d+) \|", (TESTS / "README.md").read_text(), re.MULTILINE)
    assert [int(number) for number in rows] == list(range(1, count + 1))
