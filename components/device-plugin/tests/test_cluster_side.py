"""The API server's side: pods, the node, events."""

import asyncio
import queue
from pathlib import Path

from plugin_api import ApiServer
from plugin_kit import make_pod

from hami_device_plugin.access import CardAccess
from hami_device_plugin.cluster_side import ClusterSide
from hami_device_plugin.pods import Pods
from hami_device_plugin.runtime import Runtime
from hami_device_plugin.settings import Wish
from hami_device_plugin.stand import Stand
from hamikit import names
from hamikit.codec import RegisteredDevice

CARD = RegisteredDevice(id="GPU-a", count=10, devmem=1, devcore=100, health=True)


class Side:
    """A cluster side with what it tells the rest of the plugin."""

    def __init__(self, server, tmp_path):
        self.news, self.changed = queue.Queue(), queue.Queue()
        self.pods = Pods(
            lambda: self.news.put(None), lambda pod, first: self.changed.put((pod.key, first))
        )
        self.runtime = Runtime(tmp_path / "none.toml", Path("/var/run/cdi"))
        access = CardAccess(lambda: Wish.LATE, self.runtime, list)
        self.side = ClusterSide(server.api(), "n1", self.pods, access, lambda: Stand((CARD,)))

    def __enter__(self):
        self.side.start()
        return self

    def __exit__(self, *_):
        asyncio.run(self.side.stop())


def test_follows_this_nodes_device_pods(tmp_path):
    """Selected by label and node; what comes, changes and goes is told."""
    first, second = make_pod("u1", "g1"), make_pod("u2", "g2")
    with ApiServer(first) as server, Side(server, tmp_path) as here:
        here.news.get(timeout=10)
        assert here.side.informer.synced.wait(10)
        assert here.pods.complete()
        server.put(second)
        here.news.get(timeout=10)
        assert here.pods.living() == {"u1", "u2"}
        server.put(make_pod("u2", "forged"))
        assert here.changed.get(timeout=10) == ("default/pod-u2", "g2")
        here.news.get(timeout=10)
        server.remove(first)
        here.news.get(timeout=10)
        assert here.pods.get("u1") is None
        assert here.pods.first_grant("u2") == "g2"
        queries = list(server.queries.queue)
        lists = [q for verb, path, q in queries if path == "/api/v1/pods" and verb == "GET"]
        assert all(q["labelSelector"] == "hami.io/device-pod=true" for q in lists)
        assert all(q["fieldSelector"] == "spec.nodeName=n1" for q in lists)


def test_fetches_a_pod_that_has_no_label(tmp_path):
    """The list of the node's pods shows it all the same."""
    pod = make_pod("u1", None)
    pod.metadata.labels.clear()
    with ApiServer(pod) as server, Side(server, tmp_path) as here:
        assert here.side.fetch("u1").key == "default/pod-u1"
        assert here.side.fetch("u2") is None


def test_a_server_that_is_away_knows_no_pod(tmp_path):
    """The caller waits for the informer as before."""
    with ApiServer() as server:
        here = Side(server, tmp_path)
    with here:
        assert here.side.fetch("u1") is None
        asyncio.run(here.side.pause())


def test_pausing_is_the_last_announcement(tmp_path):
    """No later look of ours lifts the pause again."""
    with ApiServer() as server, Side(server, tmp_path) as here:
        server.patches.get(timeout=10)
        asyncio.run(here.side.pause())
        assert "is being replaced" in server.annotations[names.NODE_PAUSED]
        assert here.runtime.version == "containerd://2.2.1"
        assert here.side.missing() is None or here.side.informer.missing()


def test_what_somebody_else_changes_is_put_right_at_once(tmp_path):
    """By a watch of the one node, not by looking now and then; changes of others' are let be."""
    with ApiServer() as server, Side(server, tmp_path):
        first = server.patches.get(timeout=10)
        server.annotate(NODE_BINDING="lock", NODE_BINDING_REASON=None)
        assert server.patches.get(timeout=10) == {
            names.NODE_BINDING: None,
            names.NODE_BINDING_REASON: first[names.NODE_BINDING_REASON],
        }
        server.annotate(NODE_CORDON="GPU-a")
        server.annotate(NODE_REGISTER=None)
        assert list(server.patches.get(timeout=10)) == [names.NODE_REGISTER]
        watched = [q for verb, path, q in list(server.queries.queue) if path == "/api/v1/nodes"]
        assert all(q["fieldSelector"] == "metadata.name=n1" for q in watched)


def test_an_event_is_written_once(tmp_path):
    """With the pod it is about, our name, and no more text than the API server takes."""
    pod = make_pod("u1", None)
    with ApiServer() as server:
        with Side(server, tmp_path) as here:
            for _ in range(3):
                here.side.events.warn(pod, "NoGrant", "x" * 2000)
            here.side.events.warn(pod, "GrantChanged", "other")
        first, second = server.events.get_nowait(), server.events.get_nowait()
        assert server.events.empty()
    assert (first["reason"], second["reason"]) == ("NoGrant", "GrantChanged")
    assert len(first["message"]) == 1024
    assert first["involvedObject"]["uid"] == "u1"
    assert first["source"] == {"component": "hami-device-plugin", "host": "n1"}
