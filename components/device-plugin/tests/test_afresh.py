"""The program started once more in place."""

import os
import sys

import pytest

from hami_device_plugin import afresh
from hami_device_plugin.afresh import SOONEST_S, SettingsChanged

CAUSE = SettingsChanged("another name")


class Executed(Exception):
    """Nothing comes after it."""


def execute(program, argv, environ):
    """Stands for the system call."""
    raise Executed(program, argv, environ)


def test_it_becomes_the_same_program_with_the_same_arguments():
    """And remembers when, beside the variables that it had."""
    with pytest.raises(Executed) as done:
        afresh.start(CAUSE, {"A": "b"}, now=lambda: 7.5, execute=execute)
    program, argv, environ = done.value.args
    assert (program, argv) == (sys.executable, sys.orig_argv)
    assert environ == {"A": "b", "HAMI_STARTED_AFRESH": "7.5"}


def test_whoever_has_just_done_so_leaves_the_pause_to_kubelet():
    """A fault that stays would else spin for ever."""
    environ = {"HAMI_STARTED_AFRESH": "100.0"}
    afresh.start(CAUSE, environ, now=lambda: 100 + SOONEST_S - 0.1, execute=execute)
    with pytest.raises(Executed):
        afresh.start(CAUSE, environ, now=lambda: 100 + SOONEST_S, execute=execute)


def test_open_files_do_not_go_with_it():
    """A driver whose file stays open cannot be unloaded."""
    left = os.open(os.devnull, os.O_RDONLY)
    try:
        os.set_inheritable(left, True)
        with pytest.raises(Executed):
            afresh.start(CAUSE, {}, execute=execute)
        assert not os.get_inheritable(left)
        assert os.get_inheritable(2)
    finally:
        os.close(left)
