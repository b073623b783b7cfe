"""Runs other programs so that none outlives the run that started it."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from e2e.lab.errors import CommandError

OWNER = "HAMI_LAB_OWNER"
"""Variable in the environment of every process of ours; its value is the state folder."""

# A process and mount namespace of its own: when `up` is killed, the kernel ends every
# descendant (the go compiler, debootstrap's chroot) and drops every mount they made.
_CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
)


@dataclass(frozen=True, slots=True)
class Programs:
    """Runs programs with one environment and one log.

    Attributes:
        owner: the state folder, see OWNER.
        log: where their output goes.
        env: variables on top of our own.
        contained: whether to run them in namespaces of their own; needs root.
    """

    owner: Path
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    contained: bool = field(default_factory=lambda: os.geteuid() == 0)

    def run(
        self, *argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Runs one program to its end, its output going to the log.

        Raises:
            CommandError: it failed or is not installed.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            print(f"$ {' '.join(argv)}", file=log, flush=True)
            try:
                done = subprocess.run(
                    [*(_CONTAINED if self.contained else ()), *argv],
                    cwd=cwd,
                    env=self.environment(env),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
            except FileNotFoundError as error:
                print(error, file=log)
                raise CommandError(argv, 127, self.log) from error
        if done.returncode:
            raise CommandError(argv, done.returncode, self.log)

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a program of ours sees in its environment."""
        return {**os.environ, **self.env, **(env or {}), OWNER: str(self.owner)}


def ask(*argv: str, env: Mapping[str, str] | None = None, timeout_s: float = 30) -> str | None:
    """What a short program prints, or None where it fails, hangs or is not installed."""
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
