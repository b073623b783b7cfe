"""Calls that may hang."""

import threading

import pytest

from hami_mig_manager.deadline import Patience
from hamikit.gpu import GpuError


def test_what_a_call_returns_or_raises_comes_back():
    """As if it had been made here."""
    wait = Patience(30)
    assert wait(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        wait(lambda: 1 // 0)


def test_a_call_that_hangs_is_waited_for_once():
    """Until it ends no other is made; then they are again."""
    wait, end = Patience(0.05), threading.Event()
    with pytest.raises(GpuError, match="does not answer"):
        wait(end.wait)
    made = []
    with pytest.raises(GpuError, match="has not answered"):
        wait(lambda: made.append(1))
    assert made == []
    hanging = wait._hanging
    end.set()
    hanging.join(30)
    assert Patience(30)(lambda: 8) == 8
    wait._seconds = 30
    assert wait(lambda: 9) == 9
