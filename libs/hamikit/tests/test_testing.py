"""Behaviour of hamikit.testing: what our clients may expect of the small API server."""

import threading

import pytest

from hamikit.cluster import ApiError, Unreachable
from hamikit.informer import Informer
from hamikit.objects import Node, Pod
from hamikit.testing import FAIL, LOSE_AFTER, LOSE_BEFORE, ApiServer, Store, merged

NODES, PODS = "/api/v1/nodes", "/api/v1/pods"


def node(name, **annotations):
    """A node."""
    return {"metadata": {"name": name, "uid": f"uid-{name}", "annotations": annotations}}


def pod(name, **labels):
    """A pod."""
    meta = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "labels": labels}
    return {"metadata": meta, "spec": {"containers": []}}


@pytest.fixture
def server():
    """An empty cluster."""
    with ApiServer(Store()) as running:
        yield running


class Watcher:
    """Follows a collection; `wait` ends when a condition over the names holds."""

    def __init__(self, server, path, kind, **query):
        self.told = threading.Condition()
        self.events = []
        self.informer = Informer(
            server.api(), path, kind, self.change, query=query, backoff_s=(0.01,)
        )
        self.informer.start()

    def change(self, change):
        with self.told:
            self.events.append(change)
            self.told.notify_all()

    def wait(self, condition):
        with self.told:
            assert self.told.wait_for(lambda: condition(self.names()), 10), self.names()

    def names(self):
        return {item.metadata.name for item in self.informer.items()}


def test_lists_and_watches(server):
    """What is there first, then what comes and goes, by selector."""
    server.store.put(PODS, pod("a", ours="true"))
    server.store.put(PODS, pod("b"))
    watcher = Watcher(server, PODS, Pod, labelSelector="ours=true")
    watcher.wait(lambda names: names == {"a"})
    server.store.put(PODS, pod("c", ours="true"))
    watcher.wait(lambda names: names == {"a", "c"})
    server.store.delete(PODS, "ns/a")
    watcher.wait(lambda names: names == {"c"})
    watcher.informer.stop()


def test_a_gap_is_410_and_a_restart_is_survived(server):
    """Whoever resumes from a forgotten version has to list again."""
    watcher = Watcher(server, NODES, Node)
    server.store.put(NODES, node("a"))
    watcher.wait(lambda names: names == {"a"})
    server.down.set()
    server.cut()
    server.store.put(NODES, node("b"))
    server.store.delete(NODES, "a")
    server.store.compact()
    server.down.clear()
    watcher.wait(lambda names: names == {"b"})
    watcher.informer.stop()


def test_patches_have_preconditions(server):
    """Version and uid; null removes."""
    api = server.api()
    stored = server.store.put(NODES, node("a", x="1", y="2"))
    version = stored["metadata"]["resourceVersion"]
    change = {"resourceVersion": version, "annotations": {"x": None, "z": "3"}}
    api.patch("/api/v1/nodes/a", {"metadata": change})
    assert api.get("/api/v1/nodes/a", Node).metadata.annotations == {"y": "2", "z": "3"}
    for wrong in ({"resourceVersion": version}, {"uid": "another"}):
        with pytest.raises(ApiError, match="409"):
            api.patch("/api/v1/nodes/a", {"metadata": wrong})
    with pytest.raises(ApiError, match="404"):
        api.patch("/api/v1/nodes/none", {"metadata": {}})


def test_a_binding(server):
    """Node and annotations in one write, once, and for this very pod only."""
    api = server.api()
    server.store.put(PODS, pod("a"))
    body = {
        "metadata": {"name": "a", "uid": "uid-a", "annotations": {"k": "v"}},
        "target": {"name": "n"},
    }
    path = "/api/v1/namespaces/ns/pods/a/binding"
    other = {**body, "metadata": {"uid": "another"}}
    with pytest.raises(ApiError, match="UID"):
        api.create(path, other)
    api.create(path, body)
    bound = api.get("/api/v1/namespaces/ns/pods/a", Pod)
    assert (bound.spec.node_name, bound.metadata.annotations) == ("n", {"k": "v"})
    with pytest.raises(ApiError, match="already assigned"):
        api.create(path, body)


@pytest.mark.parametrize(
    ("word", "error", "written"),
    [(LOSE_BEFORE, Unreachable, False), (LOSE_AFTER, Unreachable, True), (FAIL, ApiError, False)],
)
def test_trouble(server, word, error, written):
    """A request may get lost before or after its effect, or fail."""
    server.store.put(NODES, node("a"))
    server.trouble = lambda method, _path: word if method == "PATCH" else ""
    with pytest.raises(error):
        server.api().patch("/api/v1/nodes/a", {"metadata": {"annotations": {"k": "v"}}})
    assert (server.api().get("/api/v1/nodes/a", Node).metadata.annotations == {"k": "v"}) is written


def test_events_are_spread(server):
    """Twice, where a test wants it."""
    sent = []
    server.spread = lambda event: sent.append(event) or [event, event]
    watcher = Watcher(server, NODES, Node)
    watcher.wait(lambda _: watcher.informer.synced.is_set())
    server.store.put(NODES, node("a"))
    watcher.wait(lambda names: names == {"a"})
    watcher.informer.stop()
    assert len(sent) == 1
    assert len(watcher.events) == 1


def test_merge():
    """RFC 7386."""
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "d": 3}}) == {"a": {"c": 2, "d": 3}}
