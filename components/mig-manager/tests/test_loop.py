"""When it looks."""

import threading
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from hami_mig_manager.loop import LOOK_S, PAUSES_S, Loop
from hamikit.cluster import ApiError, Unreachable
from hamikit.gpu import GpuError


class Manager:
    """Does what the next of `answers` says."""

    def __init__(self, *answers):
        self.answers, self.looked = list(answers), 0

    def settle(self):
        self.looked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def loop(*answers):
    """A loop and what it said of NVML."""
    said = []
    works = [lambda: None, Manager(*answers).settle]
    found = Loop(works, threading.Event(), threading.Event(), nvml_up=said.append, now=lambda: 100)
    return SimpleNamespace(loop=found, said=said)


@pytest.mark.parametrize(
    ("again_at", "delay"), [(None, LOOK_S), (101.5, 1.5), (90, 0.05), (1e9, LOOK_S)]
)
def test_the_next_look_is_when_something_is_due(again_at, delay):
    """But now and then in any case."""
    one = loop(again_at)
    assert one.loop.step() == delay
    assert one.said == [True]
    assert one.loop.missing() is None


def test_what_fails_is_tried_again_ever_later():
    """And readiness says why; NVML is up unless it is NVML that fails."""
    errors = [ApiError(409, "Conflict", "x"), Unreachable("y"), *[GpuError("z")] * 5]
    one = loop(*errors, None)
    assert one.loop.missing() == "first look at the cards"
    delays = [one.loop.step() for _ in errors]
    assert delays == [*PAUSES_S, PAUSES_S[-1], PAUSES_S[-1]]
    assert one.loop.missing() == "z"
    assert one.said == [True, True, False, False, False, False, False]
    one.loop.step()
    assert one.loop.missing() is None


def test_a_mistake_of_ours_ends_nothing():
    """It is told, readiness has it, and the next look is made."""
    one = loop(KeyError("GPU-a"), None)
    assert one.loop.step() == PAUSES_S[0]
    assert one.loop.missing() == "'GPU-a'"
    one.loop.step()
    assert one.loop.missing() is None


def test_an_error_that_lasts_is_told_once():
    """Another one too, and when all is done again."""
    one = loop(*[GpuError("z")] * 4, *[Unreachable("y")] * 2, None, None)
    with capture_logs() as logs:
        for _ in range(8):
            one.loop.step()
    assert [(line["log_level"], line.get("error")) for line in logs] == [
        ("warning", "z"),
        ("warning", "y"),
        ("info", None),
    ]


def test_news_wake_it_and_it_ends_when_told():
    """What comes while it works is not lost."""
    stopping, news = threading.Event(), threading.Event()
    looked = threading.Semaphore(0)

    class Busy(Manager):
        def settle(self):
            self.looked += 1
            if self.looked == 1:
                news.set()  # a pod came while we were at it
            else:
                stopping.set()
                news.set()
            looked.release()

    manager = Busy()
    thread = threading.Thread(target=Loop([manager.settle], news, stopping).run)
    thread.start()
    thread.join(LOOK_S * 4)
    assert not thread.is_alive()
    assert manager.looked == 2
