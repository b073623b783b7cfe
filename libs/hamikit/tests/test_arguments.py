"""Values of command lines, and what is said of those that are none."""

import argparse
import re

import pytest

from hamikit.arguments import Parser, address, level, port, seconds, truth, whole


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
