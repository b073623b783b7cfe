"""Who has signed in on the status page: random ids in browsers, tokens in this process alone.

Browsers send a cookie to every port of a host, so what stands in it may reach another program on
the same machine. An id opens nothing but this page, and only until it ends; a token opens the API.
"""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LASTS_S: Final = 8 * 3600.0
"""A working day; the API server is asked about the token each time, so it may well end sooner."""
SESSIONS: Final = 1000
"""Who signs in beyond them ends the oldest one."""


@dataclass(frozen=True, slots=True)
class _Session:
    token: str
    until: float


class Sessions:
    """Tokens by id, in memory: whoever comes to another replica signs in there. Thread-safe."""

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(32),
    ) -> None:
        self._now, self._new_id = now, new_id
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}  # the oldest first

    def open(self, token: str) -> str:
        """A new id for somebody whose token is known to be good."""
        name = self._new_id()
        with self._lock:
            self._drop_ended()
            while len(self._sessions) >= SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[name] = _Session(token, self._now() + LASTS_S)
        return name

    def token(self, name: str) -> str | None:
        """The token behind an id; None where there is none, or none any more."""
        with self._lock:
            self._drop_ended()
            session = self._sessions.get(name)
        return None if session is None else session.token

    def close(self, name: str) -> None:
        """End a session; harmless where there is none."""
        with self._lock:
            self._sessions.pop(name, None)

    def _drop_ended(self) -> None:
        now = self._now()
        while self._sessions:
            oldest = next(iter(self._sessions))
            if self._sessions[oldest].until > now:
                return
            del self._sessions[oldest]
