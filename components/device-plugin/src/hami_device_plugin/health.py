"""Which cards are there and fit for use: a look at NVML now and then, and its error events."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from hami_device_plugin.faults import Faults, Ill, Reason, Sight
from hami_device_plugin.inventory import merge
from hami_device_plugin.xids import XidPolicy
from hamikit import names
from hamikit.gpu import Card, GpuError
from hamikit.truce import Truce

log = structlog.get_logger()

LOOK_S, LOOK_ILL_S = 5.0, 0.5
"""How often the cards are looked at, and how often while one is not fit: it may come back."""
CALM_S = 1.0
ANEW_S = 30.0
"""How often NVML is started anew while a card is missing: it may list one only from then on."""

# NVML's recovery actions that leave a card unusable until they are taken.
_REPAIRS = {
    1: "a reset of the card",
    2: "a reboot of the node",
    4: "the card to be drained and reset",
    6: "a reset of the bus",
    7: "a reboot of the system",
}


class Cards(Protocol):
    """What we need of hamikit.gpu.Nvml."""

    def open(self) -> Any:
        """The NVML binding."""

    def close(self) -> None:
        """Let go of the driver."""

    def handles(self) -> Sequence[tuple[Card, Any]]:
        """Every card that can be asked, with its handle."""

    @property
    def replaced(self) -> bool:
        """Whether the driver's library is another one than the one that we loaded."""


@dataclass(frozen=True, slots=True)
class Report:
    """All cards ever seen, what speaks against some, and why NVML does not answer at all."""

    cards: tuple[Card, ...] = ()
    ills: Mapping[str, Ill] = field(default_factory=dict)
    fault: str | None = None
    handles: Sequence[tuple[Card, Any]] = ()


class Health:
    """Looks at the cards in a thread of its own and reports after the first look and any later."""

    def __init__(
        self,
        nvml: Cards,
        on_report: Callable[[Report], None],
        *,
        policy: XidPolicy,
        stop: threading.Event,
        quiet_s: float = 60.0,
        truce: Truce | None = None,
        on_xid: Callable[[str, int], None] = lambda _uuid, _xid: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml, self._on_report, self._policy = nvml, on_report, policy
        self._stop, self._on_xid = stop, on_xid
        self._truce = truce or Truce(names.NODE_MIG_PAUSE_PLUGIN)
        self._faults, self._now = Faults(quiet_s, now), now
        self._known: tuple[Card, ...] = ()
        self._fault: str | None = None

    def run(self) -> None:
        """Look and listen for errors until stopped; what comes after a look is never missed."""
        while not self._stop.is_set():
            self._truce.keep(self._nvml.close, self._stop)
            try:
                nvml = self._nvml.open()
                with _event_set(nvml, self._nvml.handles()) as events:
                    whole = self._attend(nvml, events)
                if not whole:
                    self._nvml.close()
            except GpuError:
                self.look()
                self._stop.wait(LOOK_S)

    def look(self) -> list[str]:
        """One look at all cards; the UUIDs of those that answer."""
        handles: Sequence[tuple[Card, Any]] = ()
        fault = None
        try:
            handles = self._nvml.handles()
        except GpuError as error:
            fault = str(error)
        if fault != self._fault:
            log.warning("cards cannot be read", error=fault) if fault else log.info("NVML answers")
        self._fault = fault
        self._known = merge(self._known, (card for card, _ in handles))
        by_uuid = {card.uuid: handle for card, handle in handles}
        nvml = self._nvml.open() if by_uuid else None
        sights = {
            card.uuid: Sight(card.healthy, _asks(nvml, by_uuid.get(card.uuid)))
            for card in self._known
        }
        self._tell(sights, handles)
        return [card.uuid for card in self._known if card.healthy]

    def _tell(self, sights: Mapping[str, Sight], handles: Sequence[tuple[Card, Any]]) -> None:
        before = self._faults.reasons()
        self._faults.looked(sights)
        after = self._faults.reasons()
        for uuid in sorted(after.keys() | before.keys()):
            if uuid not in after:
                log.info("card is fit again", uuid=uuid, was=before[uuid].text)
            elif after[uuid] != before.get(uuid):
                log.error("card is not fit", uuid=uuid, reason=after[uuid].text)
        self._on_report(Report(self._known, after, self._fault, handles))

    def _attend(self, nvml: Any, events: Any) -> bool:
        """Look now and then and listen in between, until there are other cards or a pause.

        Whether all known cards answer, which NVML gets a while to see.
        """
        subscribed, begin = None, self._now()
        whole = True
        while not self._stop.is_set() and not self._truce.asked:
            present = self.look()
            whole = len(present) == len(self._known)
            if subscribed not in (None, present):
                return whole
            if not whole and self._now() - begin >= ANEW_S:
                return False
            subscribed = present
            pause = LOOK_ILL_S if self._faults.reasons() else LOOK_S
            if events is None:
                self._stop.wait(pause)
            elif not self._listen(nvml, events, pause):
                return whole
        return True

    def _listen(self, nvml: Any, events: Any, pause_s: float) -> bool:
        """Wait for an event that counts, or until the next look is due; False when that failed."""
        end = time.monotonic() + pause_s
        while (left := end - time.monotonic()) > 0 and not self._stop.is_set():
            try:
                event = nvml.nvmlEventSetWait_v2(events, max(1, int(left * 1000)))
            except nvml.NVMLError as error:
                if error.value == nvml.NVML_ERROR_TIMEOUT:
                    return True
                # Which card it is about cannot be told; the next look finds out.
                log.warning("waiting for card errors failed", error=str(error))
                self._stop.wait(CALM_S)
                return False
            if self._counts(nvml, event):
                return True
        return True

    def _counts(self, nvml: Any, event: Any) -> bool:
        """Take an event to account; whether a card is worth a look."""
        try:
            uuid = str(nvml.nvmlDeviceGetUUID(event.device))
        except nvml.NVMLError:
            return True  # a card that is off the bus has no name any more
        if event.eventType == nvml.nvmlEventTypeDoubleBitEccError:
            text = "memory error that could not be corrected (double-bit ECC)"
            self._remember(uuid, Reason.ECC, text)
            return True
        if event.eventType != nvml.nvmlEventTypeXidCriticalError:
            return False
        xid = int(event.eventData)
        self._on_xid(uuid, xid)
        if not self._policy.counts(xid):
            log.info("a program's error on a card", uuid=uuid, xid=xid)
            return False
        self._remember(uuid, Reason.XID, f"XID {xid}")
        return True

    def _remember(self, uuid: str, reason: Reason, text: str) -> None:
        log.error("card is not fit", uuid=uuid, reason=text)
        self._faults.happened(uuid, reason, text)
        # At once: a look may take long on a card that fails.
        self._on_report(Report(self._known, self._faults.reasons(), self._fault))


def _asks(nvml: Any, handle: Any) -> str | None:
    """The repair that NVML asks for; empty for none, None where it does not tell."""
    if nvml is None or handle is None:
        return None
    try:
        (value,) = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    except nvml.NVMLError:
        return None
    if value.nvmlReturn != nvml.NVML_SUCCESS:
        return None
    return _REPAIRS.get(int(value.value.uiVal), "")


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
    # Errors of one bit were corrected; a card that has many of them reports them by XID.
    wanted = nvml.nvmlEventTypeXidCriticalError | nvml.nvmlEventTypeDoubleBitEccError
    count = 0
    for card, handle in handles:
        try:
            mask = wanted & nvml.nvmlDeviceGetSupportedEventTypes(handle)
            nvml.nvmlDeviceRegisterEvents(handle, mask, events)
            count += 1
        except nvml.NVMLError as error:
            log.info("card has no events", uuid=card.uuid, error=str(error))
    return count
