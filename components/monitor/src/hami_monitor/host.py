"""What NVML says about the node's cards, asked in the background so that nobody has to wait."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from hami_monitor.occupants import Lists, Occupant
from hamikit import names
from hamikit.gpu import Card, GpuError, Nvml
from hamikit.truce import Truce

log = structlog.get_logger()

TIMEOUT: Final = "timeout"
NONSENSE: Final = "unexpected answer"
AUDIT: Final = "audit failed"
UNAVAILABLE: Final = "NVML unavailable"


@dataclass(frozen=True, slots=True)
class CardReading:
    """One card; ratios are percent; None where NVML does not tell."""

    card: Card
    used_bytes: int | None = None
    utilization: int | None = None
    memory_utilization: int | None = None
    occupants: tuple[Occupant, ...] | None = None


@dataclass(frozen=True, slots=True)
class HostState:
    """What is known of the cards now.

    `cards` is empty while NVML is silent. `errors` has, for each kind of failure met so far, the
    Unix time of its last occurrence. `answers` counts the questions that were answered, well or
    badly, and taken in by the audit.
    """

    up: bool = False
    cards: tuple[CardReading, ...] = ()
    errors: dict[str, float] = field(default_factory=dict)
    answers: int = 0


class Host:
    """Asks NVML again and again in one thread; `state` answers from memory at once.

    A driver that hangs holds that thread and nothing else: after `deadline_s` the answer is
    "silent" until it comes back. `watch` is told of every answer in that thread, and says after
    how many seconds it wants the next at the latest.
    """

    def __init__(
        self,
        nvml: Nvml,
        *,
        interval_s: float,
        deadline_s: float,
        watch: Callable[["HostState"], float] = lambda _state: math.inf,
        truce: Truce | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._nvml, self._now, self._wall = nvml, now, wall
        self._interval_s, self._deadline_s = interval_s, deadline_s
        self._watch = watch
        self._truce = truce or Truce(names.NODE_MIG_PAUSE_MONITOR)
        self._lock = threading.Lock()
        self._lists = Lists()
        self._asked: float | None = None  # when the question under way was put
        self._cards: tuple[CardReading, ...] | None = None
        self._errors: dict[str, float] = {}
        self._answers = 0
        self.answered = threading.Event()
        """Set when a question has been answered, well or badly, and `watch` was told."""

    def state(self) -> HostState:
        """The last answer; silent when the present question has waited for too long."""
        with self._lock:
            late = self._asked is not None and self._now() - self._asked > self._deadline_s
            if late:
                self._errors[TIMEOUT] = self._wall()
            errors = dict(self._errors)
            if late or self._cards is None:
                return HostState(errors=errors, answers=self._answers)
            return HostState(True, self._cards, errors, self._answers)

    def run(self, stopping: threading.Event) -> None:
        """Ask until `stopping`."""
        while not stopping.is_set():
            if self._truce.asked:
                self._keep(None)
                self._truce.keep(self._nvml.close, stopping)
            try:
                self.ask()
            except Exception:
                # A driver that answers nonsense must not end the questions for good.
                log.exception("NVML cannot be understood")
                self._failed(NONSENSE)
                self._keep(None)
            soonest_s = self._tell()
            with self._lock:
                self._answers += 1
            self.answered.set()
            stopping.wait(min(self._interval_s, soonest_s))
        self._nvml.close()

    def _tell(self) -> float:
        try:
            return self._watch(self.state())
        except Exception:
            # What goes wrong with one container's audit must not take the cards' metrics along.
            log.exception("audit failed")
            self._failed(AUDIT)
            return math.inf

    def start(self, stopping: threading.Event) -> threading.Thread:
        """`run` in a thread of its own."""
        thread = threading.Thread(target=self.run, args=(stopping,), name="nvml", daemon=True)
        thread.start()
        return thread

    def ask(self) -> None:
        """Put one question to NVML and keep the answer."""
        with self._lock:
            self._asked = self._now()
        cards: tuple[CardReading, ...] | None = None
        try:
            cards = tuple(self._reading(card, handle) for card, handle in self._nvml.handles())
        except GpuError as error:
            self._failed(UNAVAILABLE)
            log.warning("NVML does not answer", error=str(error))
        self._keep(cards)

    def _keep(self, cards: tuple[CardReading, ...] | None) -> None:
        with self._lock:
            self._asked, self._cards = None, cards

    def _reading(self, card: Card, handle: Any) -> CardReading:
        nvml = self._nvml.open()
        memory = self._value(card, lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used)
        rates = self._value(card, lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        now_us = int(self._wall() * 1e6)
        processes = self._value(card, lambda: self._lists.occupants(nvml, handle, now_us=now_us))
        if rates is None:
            return CardReading(card, memory, occupants=processes)
        return CardReading(card, memory, rates.gpu, rates.memory, processes)

    def _value(self, card: Card, ask: Callable[[], Any]) -> Any:
        nvml = self._nvml.open()
        try:
            return ask()
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_NOT_SUPPORTED:
                self._failed(str(error))
                log.warning("card does not answer", uuid=card.uuid, error=str(error))
            return None

    def _failed(self, what: str) -> None:
        with self._lock:
            self._errors[what] = self._wall()
