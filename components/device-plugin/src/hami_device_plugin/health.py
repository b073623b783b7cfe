"""Which cards are there and fit for use: a look at NVML now and then, and its error events."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import structlog

from hami_device_plugin.inventory import merge
from hamikit.gpu import Card, GpuError

log = structlog.get_logger()

# XIDs that a program causes, not the card (NVIDIA's XID catalogue; the same as HAMi v2.10's).
APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
EVENT_WAIT_MS = 5000


class Cards(Protocol):
    """What we need of hamikit.gpu.Nvml."""

    def open(self) -> Any:
        """The NVML binding."""

    def close(self) -> None:
        """Let go of the driver."""

    def handles(self) -> Sequence[tuple[Card, Any]]:
        """Every card that can be asked, with its handle."""

    def cards(self) -> tuple[Card, ...]:
        """Every card that has a name."""


class Health:
    """Looks at the cards in a thread of its own and tells what it found.

    `on_cards` gets all cards ever seen (a missing one as unhealthy) and the UUIDs with a fatal
    error, at the first look and after each later one. An error stays until the plugin starts anew:
    NVML has no event for a repair.
    """

    def __init__(
        self,
        nvml: Cards,
        on_cards: Callable[[tuple[Card, ...], frozenset[str]], None],
        *,
        every_s: float,
        stop: threading.Event,
    ) -> None:
        self._nvml, self._on_cards, self._every_s, self._stop = nvml, on_cards, every_s, stop
        self._known: tuple[Card, ...] = ()
        self._failed: frozenset[str] = frozenset()

    def run(self) -> None:
        """Look and listen for errors until stopped; what comes after a look is never missed."""
        while not self._stop.is_set():
            try:
                nvml = self._nvml.open()
                with _event_set(nvml, self._nvml.handles()) as events:
                    self._attend(nvml, events)
            except GpuError as error:
                log.warning("no error events from the cards", error=str(error))
                self.look()
                self._stop.wait(self._every_s)

    def look(self) -> None:
        """One look at all cards."""
        try:
            seen = self._nvml.cards()
        except GpuError as error:
            log.warning("cards cannot be read", error=str(error))
            seen = ()
        self._known = merge(self._known, seen)
        self._on_cards(self._known, self._failed)

    def _attend(self, nvml: Any, events: Any) -> None:
        """Look now and then and listen in between, until there are other cards to listen to."""
        subscribed = None
        while not self._stop.is_set():
            self.look()
            present = [card.uuid for card in self._known if card.healthy]
            if subscribed not in (None, present):
                return
            subscribed = present
            if events is None:
                self._stop.wait(self._every_s)
            elif not self._listen(nvml, events):
                return

    def _listen(self, nvml: Any, events: Any) -> bool:
        """Listen until the next look is due; False when that failed."""
        for _ in range(max(1, int(self._every_s * 1000 / EVENT_WAIT_MS))):
            if self._stop.is_set():
                break
            if not self._next(nvml, events):
                return False
        return True

    def _next(self, nvml: Any, events: Any) -> bool:
        """Wait for one event; whether to go on listening."""
        try:
            event = nvml.nvmlEventSetWait_v2(events, EVENT_WAIT_MS)
            uuid = str(nvml.nvmlDeviceGetUUID(event.device))
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_TIMEOUT:
                return True
            # Which card it is about cannot be told; the next look finds out.
            log.warning("waiting for card errors failed", error=str(error))
            self._stop.wait(1.0)
            return False
        if event.eventType != nvml.nvmlEventTypeXidCriticalError:
            return True
        xid = int(event.eventData)
        if xid in APPLICATION_XIDS:
            log.info("a program's error on a card", uuid=uuid, xid=xid)
            return True
        log.error("card failed", uuid=uuid, xid=xid)
        self._failed |= {uuid}
        self._on_cards(self._known, self._failed)
        return True


@contextmanager
def _event_set(nvml: Any, handles: Sequence[tuple[Card, Any]]) -> Iterator[Any]:
    """An event set with every card that has events; None when none has."""
    try:
        events = nvml.nvmlEventSetCreate()
    except nvml.NVMLError as error:
        log.info("this driver has no events", error=str(error))
        yield None
        return
    try:
        yield events if _subscribe(nvml, events, handles) else None
    finally:
        nvml.nvmlEventSetFree(events)


def _subscribe(nvml: Any, events: Any, handles: Sequence[tuple[Card, Any]]) -> int:
    wanted = (
        nvml.nvmlEventTypeXidCriticalError
        | nvml.nvmlEventTypeDoubleBitEccError
        | nvml.nvmlEventTypeSingleBitEccError
    )
    count = 0
    for card, handle in handles:
        try:
            mask = wanted & nvml.nvmlDeviceGetSupportedEventTypes(handle)
            nvml.nvmlDeviceRegisterEvents(handle, mask, events)
            count += 1
        except nvml.NVMLError as error:
            log.info("card has no events", uuid=card.uuid, error=str(error))
    return count
