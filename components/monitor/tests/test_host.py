"""NVML in the background: answers from memory, silence after the deadline."""

# ruff: noqa: N802 - pynvml's names

import threading
from types import SimpleNamespace

import pytest

from hami_monitor.host import AUDIT, NONSENSE, TIMEOUT, UNAVAILABLE, Host
from hami_monitor.occupants import Occupant
from hamikit import names
from hamikit.gpu import Nvml
from hamikit.objects import Metadata, Node
from hamikit.truce import Truce

from .conftest import PROCESS, SAMPLE, fill


class FakeError(Exception):
    """NVML's error: a code."""

    def __init__(self, value, text="Unknown Error"):
        self.value = value
        super().__init__(text)


class FakeNvml:
    """Two cards of pynvml; `faults` by function, `gate` holds the utilisation question back."""

    NVMLError = FakeError
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_ERROR_INSUFFICIENT_SIZE = 7
    NVML_SUCCESS = 0

    def __init__(self):
        self.nvmlLib = SimpleNamespace(
            nvmlDeviceGetComputeRunningProcesses_v3=self.processes,
            nvmlDeviceGetProcessUtilization=self.busy,
        )
        self.faults, self.calls = {}, []
        self.gate, self.reached = threading.Event(), threading.Event()
        self.gate.set()

    def maybe(self, function):
        self.calls.append(function)
        if function in self.faults:
            raise self.faults[function]

    def nvmlInit(self):
        self.maybe("init")

    def nvmlShutdown(self):
        self.maybe("shutdown")

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return ["GPU-a", "GPU-b"].index(uuid)

    def nvmlDeviceGetUUID(self, handle):
        return ["GPU-a", "GPU-b"][handle]

    def nvmlDeviceGetName(self, handle):
        return ["NVIDIA A100", "Tesla T4"][handle]

    def nvmlDeviceGetPciInfo(self, handle):
        return SimpleNamespace(busId="00000000:00:00.0")

    def nvmlDeviceGetMemoryInfo(self, handle):
        self.maybe("memory")
        return SimpleNamespace(total=1 << 30, used=1000 + handle)

    def nvmlDeviceGetUtilizationRates(self, handle):
        self.maybe("rates")
        self.reached.set()
        assert self.gate.wait(30)
        return SimpleNamespace(gpu=70 + handle, memory=20 + handle)

    def processes(self, handle, count, array):
        self.maybe("processes")
        return fill(array, count, [PROCESS.pack(100 + handle, 5, 0, 0)])

    def busy(self, handle, array, count, _since):
        return fill(array, count, [SAMPLE.pack(100 + handle, 1, 9, 0, 0, 0)])


@pytest.fixture
def fake():
    """NVML with two cards."""
    return FakeNvml()


@pytest.fixture
def clock():
    """A clock that stands still until told."""
    return SimpleNamespace(now=100.0)


@pytest.fixture
def host_of(fake, clock, tmp_path):
    """Makes what is tested, with a deadline of 10 seconds."""

    def make(**more):
        nvml = Nvml(tmp_path, binding=fake, load=lambda _: None, sys_root=tmp_path)
        clocks = {"now": lambda: clock.now, "wall": lambda: 1000 + clock.now}
        return Host(nvml, **{"interval_s": 1, "deadline_s": 10, **clocks, **more})

    return make


@pytest.fixture
def host(host_of):
    """One that nobody watches."""
    return host_of()


def test_nothing_is_known_before_the_first_answer(host):
    """No cards and not up, but no error either."""
    state = host.state()
    assert (state.up, state.cards, state.errors) == (False, (), {})


def test_keeps_the_last_answer(host):
    """Every card with its memory and both utilisations."""
    host.ask()
    state = host.state()
    assert [
        (c.card.uuid, c.used_bytes, c.utilization, c.memory_utilization) for c in state.cards
    ] == [
        ("GPU-a", 1000, 70, 20),
        ("GPU-b", 1001, 71, 21),
    ]
    assert (state.up, state.errors) == (True, {})


def test_every_card_has_its_processes(host):
    """Who holds what on which card, and how busy each keeps it."""
    host.ask()
    assert [card.occupants for card in host.state().cards] == [
        (Occupant(100, 5, 9),),
        (Occupant(101, 5, 9),),
    ]


def test_a_card_that_does_not_list_its_processes_has_none_known(host, fake):
    """Not an empty list, which would say that nobody is there."""
    fake.faults["processes"] = FakeError(999, "Unknown Error")
    host.ask()
    assert [card.occupants for card in host.state().cards] == [None, None]
    assert host.state().up


def test_who_watches_says_when_to_ask_again(host_of, fake):
    """The pause is what the watcher wants, where that is shorter."""
    seen, stopping = [], threading.Event()

    def watch(state):
        seen.append(state.up)
        if len(seen) == 3:
            stopping.set()
        return 0.01

    thread = host_of(interval_s=3600, watch=watch).start(stopping)
    thread.join(30)
    assert seen == [True, True, True]


def test_a_watcher_that_fails_costs_the_cards_nothing(host_of):
    """The figures stay, and the error shows."""
    stopping = threading.Event()

    def watch(_state):
        stopping.set()
        raise ZeroDivisionError

    host = host_of(watch=watch)
    host.start(stopping).join(30)
    assert (host.state().up, host.state().errors) == (True, {AUDIT: 1100.0})


def test_not_supported_is_absent_and_no_error(host, fake):
    """A MIG parent has no utilisation: that is not a failure."""
    fake.faults["rates"] = FakeError(3)
    host.ask()
    state = host.state()
    assert [(c.used_bytes, c.utilization) for c in state.cards] == [(1000, None), (1001, None)]
    assert (state.up, state.errors) == (True, {})


def test_a_lost_card_is_an_error_with_its_time(host, fake):
    """What NVML said stands beside when it said it; the rest of the card is still read."""
    fake.faults["rates"] = FakeError(15, "GPU is lost")
    host.ask()
    assert host.state().errors == {"GPU is lost": 1100.0}
    assert host.state().cards[0].used_bytes == 1000


def test_without_nvml_there_are_no_cards(host, fake):
    """The last good answer does not outlive NVML, and returns with it."""
    host.ask()
    fake.faults["init"] = FakeError(9, "Driver Not Loaded")
    host._nvml.close()
    host.ask()
    assert (host.state().cards, host.state().errors) == ((), {UNAVAILABLE: 1100.0})
    fake.faults.clear()
    host.ask()
    assert host.state().up


def test_a_hanging_driver_makes_nobody_wait(host, fake, clock):
    """While NVML hangs, `state` answers: the last values until the deadline, then silence."""
    host.ask()
    fake.gate.clear()
    fake.reached.clear()
    asking = threading.Thread(target=host.ask)
    asking.start()
    assert fake.reached.wait(30)
    assert host.state().up
    clock.now += 10.5
    assert (host.state().up, host.state().cards) == (False, ())
    assert host.state().errors == {TIMEOUT: 1110.5}
    fake.gate.set()
    asking.join(30)
    assert host.state().up


def test_nonsense_does_not_end_the_questions(host, fake):
    """An answer that breaks our reading is an error like any other, and the thread goes on."""
    fake.faults["memory"] = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    stopping = threading.Event()
    thread = host.start(stopping)
    assert host.answered.wait(30)
    assert (host.state().up, host.state().errors) == (False, {NONSENSE: 1100.0})
    assert thread.is_alive()
    stopping.set()
    thread.join(30)


def test_asks_until_stopped_and_lets_go(host, fake):
    """The thread ends on the event and closes NVML."""
    stopping = threading.Event()
    thread = host.start(stopping)
    assert host.answered.wait(30)
    stopping.set()
    thread.join(30)
    assert not thread.is_alive()
    assert fake.calls[-1] == "shutdown"


def test_answers_are_counted_once_the_audit_has_taken_them_in(host_of, fake):
    """Good ones and bad ones: what is counted is what a reader need not wait for any more."""
    stopping, told = threading.Event(), []

    def watch(state):
        told.append(state.answers)
        fake.faults["memory"] = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        if len(told) == 3:
            stopping.set()
        return 0.001

    host = host_of(watch=watch)
    host.run(stopping)
    assert (told, host.state().answers) == ([0, 1, 2], 3)


def test_nvml_is_closed_for_a_change_of_mig_mode(host_of, fake):
    """What is known is not told meanwhile; afterwards the questions go on."""
    stopping, said = threading.Event(), []
    truce = Truce(names.NODE_MIG_PAUSE_MONITOR)

    class Api:
        def patch(self, path, body):
            said.append((body["metadata"]["annotations"], host.state().up, fake.calls[-1]))
            truce.observe(Node())  # the change is done at once

    truce.connect(Api(), "n")
    pause = {names.NODE_MIG_PAUSE: '{"token": "t"}'}

    def watch(state):
        if not said:
            truce.observe(Node(Metadata("n", annotations=pause)))
        else:
            stopping.set()
        return 0.01

    host = host_of(watch=watch, truce=truce)
    host.run(stopping)
    key = names.NODE_MIG_PAUSE_MONITOR
    assert said[0] == ({key: "t"}, False, "shutdown")
    assert said[1][0] == {key: None}
    assert fake.calls.count("init") == 2
