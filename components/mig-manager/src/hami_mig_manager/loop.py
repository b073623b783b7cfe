"""When to look: at news, when something is due, and now and then."""

import threading
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from hami_mig_manager.apply import Manager
from hamikit.cluster import ApiError, Unreachable
from hamikit.gpu import GpuError

log = structlog.get_logger()

LOOK_S: Final = 15.0
"""At least so often: NVML tells nobody what is made by hand."""
PAUSES_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)


class Loop:
    """Runs the manager until stopped; `news` wakes it."""

    def __init__(
        self,
        manager: Manager,
        news: threading.Event,
        stopping: threading.Event,
        *,
        nvml_up: Callable[[bool], None] = lambda _up: None,
    ) -> None:
        self._manager, self.news, self._stopping = manager, news, stopping
        self._nvml_up = nvml_up
        self._failures = 0
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
            again_at = self._manager.settle()
        except (ApiError, Unreachable, GpuError, msgspec.MsgspecError) as error:
            self._nvml_up(not isinstance(error, GpuError))
            self._failures += 1
            self._missing = str(error)
            delay = PAUSES_S[min(self._failures, len(PAUSES_S)) - 1]
            # A conflict is the ordinary price of writing without a lock.
            if self._failures > 1:
                log.warning("nothing can be done", error=str(error), again_in_s=delay)
            return delay
        self._nvml_up(True)
        self._failures, self._missing = 0, None
        if again_at is None:
            return LOOK_S
        return min(LOOK_S, max(0.05, again_at - self._manager.now()))
