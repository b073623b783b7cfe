"""Values of command lines, and what is said of those that are none."""

import argparse
import re

import pytest

from hamikit.arguments import Flag, Parser, address, level, log_level, port, seconds, truth, whole


def test_what_can_be_read():
    """Hosts may be left out or be IPv6; ends of ranges count."""
    assert address("h:1") == ("h", 1)
    assert address(":65535") == ("0.0.0.0", 65535)
    assert address("[::1]:2") == ("::1", 2)
    assert (port("0"), truth("true"), truth("False")) == (0, True, False)
    assert (seconds(0.5, 2)("0.5"), seconds(0.5, 2)("2")) == (0.5, 2.0)
    assert level("warning") == "warning"
    assert (whole(7)("0"), whole(7)("7")) == (0, 7)


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (address, "9394", "'9394' is no address: write [HOST]:PORT"),
        (address, "h:x", "'x' is no port: write a number up to 65535"),
        (port, "65536", "'65536' is no port"),
        (port, "-1", "'-1' is no port"),
        (port, "\u0663", "is no port"),
        (truth, "yes", "'yes' must be true or false"),
        (truth, "", "'' must be true or false"),
        (level, "loud", "'loud' is none of debug, info, warning, error"),
        (seconds(1, 5), "soon", "'soon' is no number of seconds"),
        (seconds(1, 5), "nan", "'nan' must lie between 1 and 5 seconds"),
        (seconds(1, 5), "5.1", "'5.1' must lie between 1 and 5 seconds"),
        (whole(7), "8", "'8' must be a whole number from 0 to 7"),
        (whole(7), "1.0", "'1.0' must be a whole number from 0 to 7"),
    ],
)
def test_what_cannot(read, text, said):
    """The value, and what to write."""
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(said)):
        read(text)


def test_one_line_and_code_2(capsys):
    """The flag is named, and usage is left out; subcommands are told alike."""
    parser = Parser(prog="hami-x")
    parser.add_argument("--port", type=port)
    parser.add_subparsers(dest="verb").add_parser("go").add_argument("--on", type=truth)
    for argv, said in (
        (["--port=x"], "hami-x: argument --port: 'x' is no port: write a number up to 65535\n"),
        (["go", "--on=1"], "hami-x go: argument --on: '1' must be true or false\n"),
    ):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(argv)
        assert ended.value.code == 2
        assert capsys.readouterr().err == said


def parsed(flag, argv=(), environ=None):
    """What a program with this one flag is told."""
    parser = Parser(prog="p")
    flag.add(parser, environ or {})
    return vars(parser.parse_args(list(argv)))


def test_a_flag_beats_its_variable_and_that_its_default():
    """Each is read by what reads the flag."""
    flag = Flag("--wait-for", "WAIT", "3", "how long", seconds(0, 9))
    assert parsed(flag) == {"wait_for": 3.0}
    assert parsed(flag, environ={"WAIT": "4"}) == {"wait_for": 4.0}
    assert parsed(flag, ["--wait-for=5"], {"WAIT": "4"}) == {"wait_for": 5.0}


def test_an_empty_variable_is_none_unless_empty_means_something():
    """Manifests set variables to nothing to say nothing."""
    assert parsed(Flag("--a", "A", "x", "t"), environ={"A": ""}) == {"a": "x"}
    assert parsed(Flag("--a", "A", "x", "t", may_be_empty=True), environ={"A": ""}) == {"a": ""}


def test_a_truth_may_stand_alone():
    """`--evict` is `--evict=true`; other flags want a value."""
    assert parsed(Flag("--evict", "E", "false", "t", truth), ["--evict"]) == {"evict": True}
    with pytest.raises(SystemExit):
        parsed(log_level(), ["--log-level"])


def test_a_wrong_variable_is_told_with_its_flag(capsys):
    """One line, code 2."""
    with pytest.raises(SystemExit, match="2"):
        parsed(log_level(), environ={"LOG_LEVEL": "loud"})
    assert capsys.readouterr().err == (
        "p: argument --log-level: 'loud' is none of debug, info, warning, error\n"
    )


def test_help_names_the_variable_and_what_it_says_now(capsys):
    """Percent signs too."""
    with pytest.raises(SystemExit):
        parsed(Flag("--a", "A", "x", "50 % of it"), ["--help"], {"A": "100%s"})
    assert "50 % of it [A, now 100%s]" in capsys.readouterr().out
