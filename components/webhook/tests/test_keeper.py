"""Behaviour of hami_webhook.keeper: again and again, whatever the API server says."""

import threading
from dataclasses import replace

import pytest

from hami_webhook.config import parse
from hami_webhook.keeper import _conditions, keep
from hamikit.cluster import ApiError, Unreachable

CONFIG = replace(parse(["certificates"], {}), interval_s=3600)


class Scripted:
    """An installer whose rounds fail or succeed as told; the last one ends the loop."""

    def __init__(self, *rounds):
        self.rounds, self.stopping, self.waits = list(rounds), threading.Event(), []
        self.stopping.wait = self.waits.append

    def run_once(self):
        outcome = self.rounds.pop(0)
        if not self.rounds:
            self.stopping.set()
        if outcome:
            raise outcome


def test_failures_are_tried_again_sooner_than_the_next_look():
    """Half a second at first, then longer; a success starts anew."""
    down = ApiError(500, "", "down")
    installer = Scripted(down, Unreachable("x"), down, None, down)
    keep(CONFIG, installer.stopping, installer)
    assert installer.waits == [0.5, 1.0, 2.0, 3600, 0.5]


def test_once_ends_with_the_first_success():
    """As an init container does it."""
    installer = Scripted(ApiError(500, "", "down"), None, None)
    keep(replace(CONFIG, once=True), installer.stopping, installer)
    assert installer.rounds == [None]


def test_a_fault_of_ours_is_not_swallowed():
    """The container restarts and its log says why."""
    installer = Scripted(TypeError("bug"))
    with pytest.raises(TypeError):
        keep(CONFIG, installer.stopping, installer)


def test_the_conditions_are_those_of_the_file_as_it_is_now(tmp_path):
    """A renamed resource reaches the registration without a restart; a fault keeps the last."""
    path = tmp_path / "c.yaml"
    path.write_text("nvidia: {resourceCountName: a.io/gpu}")
    present = _conditions(replace(CONFIG, device_config_file=str(path)))
    assert "'a.io/gpu'" in present()["asks-for-a-device"]
    path.write_text("nvidia: {resourceCountName: other.io/gpu}")
    assert "'other.io/gpu'" in present()["asks-for-no-device"]
    path.write_text("nvidia: {resourceCountName: none}")
    assert "'other.io/gpu'" in present()["asks-for-a-device"]
    assert _conditions(CONFIG)() == {}
