"""One line a step for the person at the terminal, with its time."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from e2e.lab.errors import CommandError

TAIL_LINES = 20


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, or a word about its absence."""
    try:
        text = log.read_text(errors="replace")
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(text.splitlines()[-lines:])


class Console:
    """Prints the steps of a run; silent steps take no line until they end."""

    def __init__(self, out: TextIO = sys.stdout, now: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._now = now

    def say(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    @contextmanager
    def step(self, title: str, waits_for: str = "") -> Iterator[None]:
        """Times what is done inside; `waits_for` is printed first where it takes long."""
        if waits_for:
            self.say(f"   ...  {title}: {waits_for}")
        start = self._now()
        try:
            yield
        except BaseException as error:
            self.say(f"FAILED  {title:<34} {self._now() - start:6.1f} s")
            if isinstance(error, CommandError):
                self.show(error)
            raise
        self.say(f"    ok  {title:<34} {self._now() - start:6.1f} s")

    def show(self, error: CommandError) -> None:
        """Prints the end of a failed program's log, once."""
        if not error.shown:
            error.shown = True
            self.say(f"{tail(error.log)}\n{error}; the whole log: {error.log}")
