"""The table of defects is whole: `make mutants` can show each of them."""

import re
from pathlib import Path

import pytest
from mutants.run import HERE, apply, copy_of, table

ROWS = table()
TESTS = Path(__file__).parent


def test_every_defect_has_its_row():
    """47 are known; each has a patch with its test, or a reason."""
    assert {row.number for row in ROWS} == set(range(1, 48))
    assert {row.patch for row in ROWS} - {""} == {path.stem for path in HERE.glob("*.patch")}
    for row in ROWS:
        assert row.patch or "::" not in row.test, row


@pytest.mark.parametrize("patch", sorted({row.patch for row in ROWS} - {""}))
def test_every_patch_applies(patch, tmp_path):
    """To the sources as they are."""
    assert apply(copy_of(tmp_path / "copy"), patch) == ""


def test_every_named_test_exists():
    """A row that names a test that was renamed shows nothing."""
    for row in ROWS:
        for file, name in re.findall(r"^(\w+\.py)::(\w+)", row.test):
            assert f"def {name}(" in (TESTS / file).read_text(), row
