"""Which cards are there and fit for use."""

import threading
from types import SimpleNamespace

import pytest

from hami_device_plugin.health import Health
from hami_device_plugin.xids import XidPolicy
from hamikit import names
from hamikit.gpu import Card, GpuError
from hamikit.objects import Metadata, Node
from hamikit.truce import Truce

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

    NVMLError, NVML_ERROR_TIMEOUT, NVML_SUCCESS = NvmlFault, TIMEOUT, 0
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230
    nvmlEventTypeXidCriticalError, nvmlEventTypeDoubleBitEccError = XID, ECC  # noqa: N815
    replaced = False

    def __init__(self, *events):
        self.events, self.found, self.freed, self.masks = list(events), (A, B), 0, []
        self.without_events, self.nameless, self.actions = (), (), {}
        self.stop = threading.Event()
        self.closed, self.anew = 0, ()

    def open(self):
        return self

    def close(self):
        self.closed += 1
        self.found = self.anew or self.found

    def handles(self):
        if isinstance(self.found, Exception):
            raise self.found
        return [(card, card.uuid) for card in self.found]

    def nvmlDeviceGetFieldValues(self, handle, fields):  # noqa: N802
        assert fields == [230]
        action = self.actions.get(handle)
        value = SimpleNamespace(uiVal=action)
        return [SimpleNamespace(nvmlReturn=3 if action is None else 0, value=value)]

    def nvmlEventSetCreate(self):  # noqa: N802
        return "set"

    def nvmlEventSetFree(self, _events):  # noqa: N802
        self.freed += 1

    def nvmlDeviceGetSupportedEventTypes(self, handle):  # noqa: N802
        if handle in self.without_events:
            raise NvmlFault(3)
        return XID | ECC | 1

    def nvmlDeviceRegisterEvents(self, handle, mask, _events):  # noqa: N802
        self.masks.append((handle, mask))

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        if handle in self.nameless:
            raise NvmlFault(LOST)
        return handle

    def nvmlEventSetWait_v2(self, _events, _timeout_ms):  # noqa: N802
        if not self.events:
            self.stop.set()
            raise NvmlFault(TIMEOUT)
        event = self.events.pop(0)
        if callable(event):
            return event()
        if isinstance(event, int):
            raise NvmlFault(event)
        card, kind, xid = event
        return SimpleNamespace(device=card, eventType=kind, eventData=xid)


def watch(nvml, **more):
    """What Health tells until the prepared events are used up: UUID -> reason each time."""
    told = []
    health = Health(
        nvml,
        lambda report: told.append({uuid: ill.text for uuid, ill in report.ills.items()}),
        policy=more.pop("policy", XidPolicy()),
        stop=nvml.stop,
        **more,
    )
    health.run()
    return told


def test_a_fatal_error_marks_its_card():
    """Errors that a program causes, and events of other kinds, do not."""
    counted = []
    nvml = Nvml(("GPU-a", XID, 31), ("GPU-a", 1, 0), TIMEOUT, ("GPU-b", XID, 79))
    told = watch(nvml, on_xid=lambda *what: counted.append(what))
    assert told == [{}, {}, {"GPU-b": "XID 79"}, {"GPU-b": "XID 79"}]
    assert counted == [("GPU-a", 31), ("GPU-b", 79)]
    assert nvml.masks == [("GPU-a", XID | ECC), ("GPU-b", XID | ECC)]
    assert nvml.freed == 1


def test_the_operator_names_errors_that_count():
    """HAMi's variables."""
    policy = XidPolicy.read({"DP_ENABLE_HEALTHCHECKS": "31", "DP_DISABLE_HEALTHCHECKS": "79"})
    nvml = Nvml(("GPU-a", XID, 31), ("GPU-b", XID, 79))
    assert watch(nvml, policy=policy)[-1] == {"GPU-a": "XID 31"}


def test_a_memory_error_marks_its_card():
    """One that could not be corrected."""
    assert "double-bit ECC" in watch(Nvml(("GPU-a", ECC, 0)))[-1]["GPU-a"]


def test_a_card_is_fit_again_after_its_repair():
    """NVML asked for one and no longer does."""
    nvml = Nvml(("GPU-a", XID, 48))

    def act(action):
        def step():
            nvml.actions["GPU-a"] = action
            raise NvmlFault(TIMEOUT)

        return step

    nvml.events += [act(1), act(0), TIMEOUT]
    told = [set(ills) for ills in watch(nvml)]
    assert told == [set(), {"GPU-a"}, {"GPU-a"}, {"GPU-a"}, set(), set()]


@pytest.mark.parametrize(
    ("action", "unfit"),
    [(None, False), (0, False), (1, True), (2, True), (3, False), (4, True), (5, False), (6, True)],
)
def test_what_nvml_asks_for(action, unfit):
    """Draining of links between cards leaves the card itself usable."""
    nvml = Nvml()
    nvml.actions["GPU-a"] = action
    assert ("GPU-a" in watch(nvml)[0]) is unfit


def test_a_card_off_the_bus_is_found_by_a_look_at_once():
    """Its event has no name any more, and the others are listened to anew."""
    nvml = Nvml()

    def lose():
        nvml.nameless, nvml.found = ("GPU-a",), (B,)
        return SimpleNamespace(device="GPU-a", eventType=XID, eventData=79)

    def restore():
        nvml.nameless, nvml.found = (), (A, B)
        raise NvmlFault(TIMEOUT)

    nvml.events = [lose, restore, TIMEOUT]
    assert watch(nvml) == [{}, *[{"GPU-a": "it does not answer"}] * 2, {}, {}, {}]
    assert [handle for handle, _ in nvml.masks] == ["GPU-a", "GPU-b", "GPU-b", "GPU-a", "GPU-b"]
    assert nvml.freed == 3


def test_nvml_is_started_anew_for_a_card_that_it_does_not_see_again():
    """A card that was attached anew may be on its list only from then on; not at each look."""
    nvml, clock = Nvml(), iter(range(0, 1000, 10))

    def lose():
        nvml.found = (B,)
        raise NvmlFault(TIMEOUT)

    def attach():
        nvml.anew = (A, B)
        raise NvmlFault(TIMEOUT)

    nvml.events = [TIMEOUT, lose, TIMEOUT, attach, TIMEOUT, TIMEOUT, TIMEOUT]
    told = [set(ills) for ills in watch(nvml, now=lambda: next(clock))]
    assert told[-1] == set()
    assert {"GPU-a"} in told
    assert nvml.closed == 2


def test_a_failed_wait_is_followed_by_a_look():
    """It does not say which card; the look does."""
    nvml = Nvml(LOST)
    nvml.stop.wait = lambda _timeout: False
    assert len(watch(nvml)) == 2
    assert nvml.freed == 2


def test_cards_without_events_are_no_fault():
    """The others are listened to."""
    nvml = Nvml()
    nvml.without_events = ("GPU-a",)
    watch(nvml)
    assert [handle for handle, _ in nvml.masks] == ["GPU-b"]


def test_a_driver_that_goes_away_makes_all_cards_unfit():
    """They stay known, and the report says why."""
    nvml, told = Nvml(), []
    health = Health(nvml, told.append, policy=XidPolicy(), stop=nvml.stop)
    health.look()
    nvml.found = GpuError("gone")
    health.look()
    assert [[c.healthy for c in r.cards] for r in told] == [[True, True], [False, False]]
    assert [r.fault for r in told] == [None, "gone"]
    assert set(told[1].ills) == {"GPU-a", "GPU-b"}


def test_a_driver_that_comes_later_is_waited_for():
    """Nothing ends, and the first report says what is missing."""
    nvml, told = Nvml(), []
    nvml.found = GpuError("NVML does not start")

    def wait(_timeout):
        nvml.found = (A,)

    nvml.stop.wait = wait
    Health(nvml, told.append, policy=XidPolicy(), stop=nvml.stop).run()
    assert (told[0].cards, told[0].fault) == ((), "NVML does not start")
    assert [card.uuid for card in told[-1].cards] == ["GPU-a"]
    assert told[-1].fault is None


def test_nvml_is_closed_for_a_change_of_mig_mode():
    """The events go first; afterwards the cards are looked at again."""
    truce, said = Truce(names.NODE_MIG_PAUSE_PLUGIN), []
    pause = {names.NODE_MIG_PAUSE: '{"token": "t"}'}

    class Api:
        def patch(self, path, body):
            said.append((body["metadata"]["annotations"], nvml.freed, closed.copy()))
            truce.observe(Node())  # the change is done at once

    def ask():
        truce.observe(Node(Metadata("n", annotations=pause)))
        raise NvmlFault(TIMEOUT)

    truce.connect(Api(), "n")
    nvml, closed = Nvml(ask, TIMEOUT), []
    nvml.close = lambda: closed.append(True)
    told = watch(nvml, truce=truce)
    key = names.NODE_MIG_PAUSE_PLUGIN
    assert said[0] == ({key: "t"}, 1, [True])
    assert said[1][0] == {key: None}
    assert nvml.freed == 2
    assert set(map(str, told)) == {"{}"}
