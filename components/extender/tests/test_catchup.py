"""A fresh list against the view."""

import json

from extender_kit import pod_object
from msgspec import convert

from hami_extender.catchup import CatchUp
from hami_extender.snapshot import Snapshot
from hamikit.cluster import Unreachable
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.objects import Pod


class Api:
    """Answers one page after the other; an exception is raised."""

    def __init__(self, *pages):
        self.pages, self.queries = list(pages), []

    def request(self, method, path, *, query):
        assert (method, path) == ("GET", "/api/v1/pods")
        self.queries.append(query)
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return json.dumps(page).encode()


def test_done_once_every_bound_pod_has_been_shown():
    """Pages are followed; waiting and ended pods do not matter."""
    bound = pod_object("bound", node="n")
    pages = [
        {"metadata": {"continue": "more"}, "items": [bound, pod_object("waiting")]},
        {"metadata": {}, "items": [pod_object("ended", node="n", phase="Failed")]},
    ]
    view = Snapshot(NVIDIA)
    api = Api(*pages, *pages, *pages)
    check = CatchUp(view, api, {"labelSelector": "x"})
    assert not check.done()
    view.on_pod(Change(None, convert(pod_object("bound"), Pod)))
    assert not check.done()
    view.on_pod(Change(None, convert(bound, Pod)))
    assert check.done()
    assert api.queries[-1] == {"labelSelector": "x", "limit": 500, "continue": "more"}


def test_a_list_that_fails_proves_nothing():
    """Neither does one that cannot be read."""
    api = Api(Unreachable("no"), {"items": 7})
    check = CatchUp(Snapshot(NVIDIA), api, {})
    assert not check.done()
    assert not check.done()
