"""Command lines whose mistakes are told in one line: which flag, which value, what to write."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from hamikit import names

LEVELS = ("debug", "info", "warning", "error")
"""Of the log."""


class Parser(argparse.ArgumentParser):
    """Argparse that leaves its usage out when something is wrong."""

    def error(self, message: str) -> NoReturn:
        """Say it and end with code 2."""
        self.exit(2, f"{self.prog}: {message}\n")

    def need_node_name(self, name: str) -> None:
        """End so where nobody says which node this is."""
        if not name:
            self.error(
                f"the node's name is missing: set {names.ENV_NODE_NAME} from spec.nodeName "
                "or give --node-name"
            )


def address(text: str) -> tuple[str, int]:
    """`[HOST]:PORT`; without a host all of them."""
    host, colon, number = text.rpartition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: write [HOST]:PORT")
    return host.strip("[]") or "0.0.0.0", port(number)


def port(text: str) -> int:
    """A port; 0 counts."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: write a number up to 65535")
    return int(text)


def truth(text: str) -> bool:
    """`true` or `false`, in any case."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} must be true or false")
    return text.lower() == "true"


def level(text: str) -> str:
    """What the log tells."""
    if text not in LEVELS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(LEVELS)}")
    return text


def seconds(low: float, high: float) -> Callable[[str], float]:
    """A number of seconds between these."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from error
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} must lie between {low:g} and {high:g} seconds"
            )
        return value

    return read


def whole(high: int) -> Callable[[str], int]:
    """A whole number from 0 to this one."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) > high:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 0 to {high}")
        return int(text)

    return read


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag, the variable that is its default, its own default, its meaning and what reads it.

    One that `truth` reads may stand alone. An empty variable counts as none, except where empty
    means something.
    """

    name: str
    variable: str
    default: str
    text: str
    kind: Callable[[str], object] = str
    metavar: str | None = None
    may_be_empty: bool = False

    def add(self, parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
        """Let a parser know it."""
        alone = {"nargs": "?", "const": "true"} if self.kind is truth else {}
        found = environ.get(self.variable, self.default)
        value = found if found or self.may_be_empty else self.default
        parser.add_argument(
            self.name,
            default=value,
            type=self.kind,
            metavar=self.metavar,
            # Argparse formats help texts.
            help=f"{self.text} [{self.variable}, now {value or 'none'}]".replace("%", "%%"),
            **alone,  # type: ignore[arg-type]
        )


def log_level(variable: str = "LOG_LEVEL") -> Flag:
    """The flag that every component has."""
    return Flag("--log-level", variable, "info", f"one of {', '.join(LEVELS)}", level)
