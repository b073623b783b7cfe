"""A wrong cards file is refused with its line and what to do."""

import subprocess

import pytest

GOOD = "[card]\nmodel = M\nmemory_mib = 64\ncontext_mib = 4\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 0, "no cards"),
        ("model = M\n", 1, "before the first section"),
        ("[crad]\n", 1, "unknown section '[crad]'; known: [driver], [card]"),
        (GOOD + "memry = 1\n", 5, "unknown key 'memry'"),
        ("[driver]\nname = x\n", 2, "unknown key 'name' in [driver]"),
        ("[card]\nmodel M\n", 2, "is not KEY = VALUE"),
        ("[card]\nmodel =\n", 2, "'model' has no value"),
        ("[card]\nmemory_mib = 64\n", 2, "has no model"),
        ("[card]\nmodel = M\n", 2, "has no memory_mib"),
        ("[card]\nmodel = M\nmemory_mib = 40GB\n", 3, "'40GB' is not a whole number"),
        ("[card]\nmodel = M\nmemory_mib = -1\n", 3, "'-1' is not a whole number"),
        ("[card]\nmodel = M\nmemory_mib = 64\n", 3, "a context of 300 MiB does not fit"),
        (GOOD + "count = 17\n", 5, "more than 16 cards"),
        (GOOD + "compute = eight\n", 5, "is not MAJOR.MINOR"),
        (GOOD + "numa = left\n", 5, "is not a node or a list"),
        (GOOD + "mig = maybe\n", 5, "neither yes nor no"),
        (GOOD + "mig = yes\n", 5, "mig = yes needs mig_slices and mig_profile"),
        (GOOD + "mig_change = soon\n", 5, "none of at-once, when-idle, reset"),
        (GOOD + "mig_profile = 1g.5gb 0 19\n", 5, "is not NAME NUMBER ID SLICES SM MIB MOST"),
        (GOOD + "mig_profile = 1g 0 19 1 14 9 7 0,1\n", 5, "'0,1' is not START,START:SIZE"),
        ("[driver]\ncuda = 9\n", 2, "is not a version from 11.0 on"),
    ],
)
def test_errors_name_file_line_and_cure(build, tmp_path, text, line, message):
    """Every mistake is one line on standard error, and no state file is made."""
    path, state = tmp_path / "cards.txt", tmp_path / "state"
    path.write_text(text)
    done = subprocess.run(
        [build / "fakegpu", "init", "--cards", path, "--state", state],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"fakegpu: {path}:{line}: ")
    assert message in done.stderr
    assert not state.exists()


def test_one_file_may_mix_models(make_node):
    """Several [card] sections add up, and comments and blank lines are skipped."""
    node = make_node(f"# two kinds\n\n{GOOD}count = 2\n\n{GOOD.replace('= M', '= N')}")
    assert [card["name"] for card in node.ledger()] == ["M", "M", "N"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ledger"], "no state file"),
        (["frobnicate"], "unknown verb 'frobnicate'"),
        (["init", "--cards", "/nowhere", "--state", "/tmp/x"], "/nowhere: No such file"),
        (["ledger", "--state", "/dev/null"], "is no state file"),
    ],
)
def test_misuse_of_the_command_is_explained(build, arguments, message):
    """The command says what is missing or wrong."""
    done = subprocess.run(
        [build / "fakegpu", *arguments], env={}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize("card", ["2", "-1", "GPU-nobody", "zero"])
def test_unknown_cards_are_refused(node, card):
    """A card is an index in range or a UUID."""
    done = subprocess.run(
        [node.build / "fakegpu", "xid", "--", card, "48"],
        env=node.env,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"no card '{card}'" in done.stderr
