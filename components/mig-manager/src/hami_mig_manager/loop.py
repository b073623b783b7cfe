"""When to look: at news, when something is due, and now and then."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from hami_mig_manager.verdict import NvmlFailed
from hamikit.cluster import ApiError, Unreachable
from hamikit.deviceconfig import ConfigError
from hamikit.gpu import GpuError

log = structlog.get_logger()

LOOK_S: Final = 15.0
"""At least so often: NVML tells nobody what is made by hand."""
SOON_S: Final = 0.05
PAUSES_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)


class Loop:
    """Does all of `works` again and again until stopped; `news` wakes it.

    A work says when it wants to be done again, in Unix seconds by `now`.
    """

    def __init__(
        self,
        works: Sequence[Callable[[], float | None]],
        news: threading.Event,
        stopping: threading.Event,
        *,
        nvml_up: Callable[[bool], None] = lambda _up: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._works, self.news, self._stopping = works, news, stopping
        self._nvml_up, self._now = nvml_up, now
        self._failures = 0
        self._said: str | None = None
        self._missing: str | None = "first look at the cards"

    def missing(self) -> str | None:
        """What is missing until the cards are as they should be; None when they are."""
        return self._missing

    def run(self) -> None:
        """Look, again and again."""
        while not self._stopping.is_set():
            self.news.clear()
            delay = self.step()
            self.news.wait(delay)

    def step(self) -> float:
        """Look once and do what can be done; after how many seconds to look again."""
        try:
            times = [when for work in self._works if (when := work()) is not None]
        except (ApiError, Unreachable, GpuError, NvmlFailed, ConfigError) as error:
            self._nvml_up(not isinstance(error, GpuError))
            delay = self._failed(error)
            # A conflict is the ordinary price of writing without a lock.
            if self._failures > 1 and self._said != str(error):
                log.warning("nothing can be done", error=str(error), again_in_s=delay)
                self._said = str(error)
            return delay
        except Exception as error:
            # A mistake of ours must not leave a pause on the node and nobody at work.
            log.exception("a look failed")
            return self._failed(error)
        self._nvml_up(True)
        if self._said is not None:
            log.info("all is done again", after=self._said)
        self._failures, self._missing, self._said = 0, None, None
        return min([LOOK_S, *(max(SOON_S, when - self._now()) for when in times)])

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        self._missing = str(error) or repr(error)
        return PAUSES_S[min(self._failures, len(PAUSES_S)) - 1]
