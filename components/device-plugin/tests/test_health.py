"""Which cards are there and fit for use."""

import threading
from types import SimpleNamespace

from hami_device_plugin.health import Health
from hamikit.gpu import Card, GpuError

A, B = Card("GPU-a", 0, "A100", 40960), Card("GPU-b", 1, "A100", 40960)
TIMEOUT, LOST = 10, 15
XID, ECC = 8, 2


class NvmlFault(Exception):
    """NVML's error."""

    def __init__(self, value):
        self.value = value
        super().__init__(str(value))


class Nvml:
    """NVML with prepared events: (card, type, XID), or an error code."""

    NVMLError, NVML_ERROR_TIMEOUT = NvmlFault, TIMEOUT
    nvmlEventTypeXidCriticalError, nvmlEventTypeDoubleBitEccError = XID, ECC  # noqa: N815
    nvmlEventTypeSingleBitEccError = 1  # noqa: N815

    def __init__(self, *events):
        self.events, self.found, self.freed, self.masks = list(events), (A, B), 0, []
        self.without_events = ()
        self.stop = threading.Event()

    def open(self):
        return self

    def close(self):
        """Nothing."""

    def cards(self):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def handles(self):
        return [(card, card.uuid) for card in self.found]

    def nvmlEventSetCreate(self):  # noqa: N802
        return "set"

    def nvmlEventSetFree(self, _events):  # noqa: N802
        self.freed += 1

    def nvmlDeviceGetSupportedEventTypes(self, handle):  # noqa: N802
        if handle in self.without_events:
            raise NvmlFault(3)
        return XID

    def nvmlDeviceRegisterEvents(self, handle, mask, _events):  # noqa: N802
        self.masks.append((handle, mask))

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return handle

    def nvmlEventSetWait_v2(self, _events, _timeout_ms):  # noqa: N802
        if not self.events:
            self.stop.set()
            raise NvmlFault(TIMEOUT)
        event = self.events.pop(0)
        if isinstance(event, int):
            raise NvmlFault(event)
        card, kind, xid = event
        return SimpleNamespace(device=card, eventType=kind, eventData=xid)


def watch(nvml):
    """What Health tells until the prepared events are used up: (healthy, failed) each time."""
    told = []
    health = Health(
        nvml,
        lambda cards, failed: told.append(([c.uuid for c in cards if c.healthy], set(failed))),
        every_s=60,
        stop=nvml.stop,
    )
    health.run()
    return told


def test_a_fatal_error_marks_its_card():
    """Errors that a program causes, and events of other kinds, do not."""
    nvml = Nvml(("GPU-a", XID, 31), ("GPU-a", ECC, 0), TIMEOUT, ("GPU-b", XID, 79))
    both = ["GPU-a", "GPU-b"]
    assert watch(nvml) == [(both, set()), (both, {"GPU-b"})]
    assert nvml.masks == [("GPU-a", XID), ("GPU-b", XID)]
    assert nvml.freed == 1


def test_a_failed_wait_is_followed_by_a_look():
    """It does not say which card; the look does."""
    nvml = Nvml(LOST)
    nvml.stop.wait = lambda _timeout: False
    told = watch(nvml)
    assert len(told) == 2
    assert nvml.freed == 2


def test_cards_without_events_are_no_fault():
    """The others are listened to."""
    nvml = Nvml()
    nvml.without_events = ("GPU-a",)
    watch(nvml)
    assert nvml.masks == [("GPU-b", XID)]


def test_a_driver_that_goes_away_makes_all_cards_unhealthy():
    """They stay known."""
    nvml, told = Nvml(), []
    health = Health(nvml, lambda cards, _: told.append(cards), every_s=1, stop=nvml.stop)
    health.look()
    nvml.found = GpuError("gone")
    health.look()
    assert [[c.healthy for c in cards] for cards in told] == [[True, True], [False, False]]
