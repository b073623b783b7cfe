"""What can go wrong in the lab, in words for the person who started it."""

from pathlib import Path


class LabError(Exception):
    """A step cannot go on; the text says what, why and what to do."""


class CommandError(LabError):
    """A program failed; its output is in `log`, whose end is `shown` once."""

    shown = False

    def __init__(self, argv: tuple[str, ...], code: int, log: Path) -> None:
        super().__init__(f"`{' '.join(argv)}` ended with {code}")
        self.log = log
