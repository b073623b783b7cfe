"""Behaviour of hamikit.informer over HTTP: list, watch, resume, relist."""

import queue
import threading

import msgspec
import pytest
import structlog.testing

from hamikit.informer import Informer
from hamikit.objects import Pod

PATH = "/api/v1/pods"


def pod(name, version, **labels):
    """A pod whose uid is its name."""
    metadata = {"name": name, "uid": name, "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata}


def listed(version, *items, more=""):
    """A list, or one page of it."""
    return {"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(items)}


def event(kind, value):
    """A watch event."""
    return {"type": kind, "object": value}


class Watched:
    """An informer in its thread, and the changes it told."""

    def __init__(self, server):
        self.changes = queue.Queue()
        self.informer = Informer(
            server.api(timeout=5),
            PATH,
            Pod,
            self.changes.put,
            query={"labelSelector": "hami.io/device-pod=true"},
            backoff_s=(0.01, 0.02),
        )
        self.thread = self.informer.start()

    def next(self):
        """The next change as (name, version before, version after)."""
        change = self.changes.get(timeout=10)
        return (
            change.present.metadata.name,
            change.before and change.before.metadata.resource_version,
            change.after and change.after.metadata.resource_version,
        )


@pytest.fixture
def watch(server):
    """Start an informer once the server's answers are prepared."""
    started = []

    def start():
        started.append(Watched(server))
        return started[-1]

    yield start
    for each in started:
        each.informer.stop()
    server.closing.set()
    for each in started:
        each.thread.join(10)
        assert not each.thread.is_alive()


def requests(server, count):
    """The next requests' queries."""
    return [server.seen.get(timeout=10)[2] for _ in range(count)]


def test_list_in_pages_then_watch(server, watch):
    """Every page is taken, the selector is kept, the watch starts where the list ended."""
    server.lists.extend([listed(5, pod("a", 1), more="token"), listed(5, pod("b", 2))])
    server.watches.append([event("ADDED", pod("c", 6)), event("MODIFIED", pod("a", 7))])
    watched = watch()
    assert [watched.next() for _ in range(4)] == [
        ("a", None, "1"),
        ("b", None, "2"),
        ("c", None, "6"),
        ("a", "1", "7"),
    ]
    assert watched.informer.synced.is_set()
    assert watched.informer.missing() is None
    first, second, third = requests(server, 3)
    assert first == {"labelSelector": "hami.io/device-pod=true", "limit": "500"}
    assert second["continue"] == "token"
    assert (third["watch"], third["resourceVersion"]) == ("1", "5")
    assert third["labelSelector"] == "hami.io/device-pod=true"


def test_not_synced_before_the_whole_list_is_there(server, watch):
    """Half a list is no view of the cluster, though its objects are told as they come."""
    asked, gate = threading.Event(), threading.Event()

    def second_page():
        asked.set()
        gate.wait(10)
        return listed(5, pod("b", 2))

    server.lists.extend([listed(5, pod("a", 1), more="token"), second_page])
    watched = watch()
    assert asked.wait(10)
    assert watched.informer.missing() == f"first list of {PATH}"
    assert watched.next() == ("a", None, "1")
    assert watched.changes.empty()
    gate.set()
    assert watched.informer.synced.wait(10)
    assert watched.informer.missing() is None


def test_a_failed_list_is_tried_again(server, watch):
    """An API server that restarts is no reason to end."""
    server.lists.extend([(500, {"message": "later"}), listed(5, pod("a", 1))])
    assert watch().next() == ("a", None, "1")


def test_deletion_tells_the_last_state(server, watch):
    """What the object looked like at its end decides what is freed."""
    server.lists.append(listed(5, pod("a", 1)))
    server.watches.append([event("DELETED", pod("a", 6))])
    watched = watch()
    assert [watched.next(), watched.next()] == [("a", None, "1"), ("a", "6", None)]
    assert watched.informer.items() == []


def test_an_ended_watch_resumes_where_it_was(server, watch):
    """Events and bookmarks move the place; nothing is listed anew."""
    server.lists.append(listed(5))
    server.watches.append([event("ADDED", pod("a", 6)), "end"])
    server.watches.append([event("BOOKMARK", pod("", 9)), "end"])
    watched = watch()
    assert watched.next() == ("a", None, "6")
    versions = [query.get("resourceVersion") for query in requests(server, 4)]
    assert versions == [None, "5", "6", "9"]


def test_a_broken_connection_resumes_where_it_was(server, watch):
    """Half an event is dropped, and comes again."""
    server.lists.append(listed(5))
    server.watches.append([event("ADDED", pod("a", 6)), b'{"type":"MODIF', "break"])
    server.watches.append([event("MODIFIED", pod("a", 7))])
    watched = watch()
    assert [watched.next(), watched.next()] == [("a", None, "6"), ("a", "6", "7")]
    assert [query.get("resourceVersion") for query in requests(server, 3)] == [None, "5", "6"]


def test_an_event_in_several_pieces(server, watch):
    """Chunks need not end where lines do; blank lines mean nothing."""
    server.lists.append(listed(5))
    line = b'{"type":"ADDED","object":{"metadata":{"uid":"a","name":"a","resourceVersion":"6"}}}'
    server.watches.append([line[:20], line[20:50], line[50:] + b"\n\n" + line[:5]])
    assert watch().next() == ("a", None, "6")


@pytest.mark.parametrize(
    "refusal", [410, [{"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}]]
)
def test_a_gap_is_filled_by_a_list_told_as_differences(server, watch, refusal):
    """Gone, changed and new objects are told; the same ones are not."""
    server.lists.append(listed(5, pod("gone", 1), pod("same", 2), pod("changed", 3)))
    server.watches.append(refusal)
    server.lists.append(listed(20, pod("same", 2), pod("changed", 13), pod("new", 14)))
    watched = watch()
    assert {watched.next() for _ in range(3)} == {
        ("gone", None, "1"),
        ("same", None, "2"),
        ("changed", None, "3"),
    }
    assert watched.next() == ("gone", "1", None)
    assert {watched.next(), watched.next()} == {("changed", "3", "13"), ("new", None, "14")}
    assert {item.metadata.name for item in watched.informer.items()} == {"same", "changed", "new"}
    assert requests(server, 4)[-1]["resourceVersion"] == "20"


def test_a_name_used_again_is_another_object(server, watch):
    """Identity is the uid: the old pod goes, the new one comes."""
    server.lists.append(listed(5, pod("a", 1)))
    server.watches.append(410)
    again = pod("a", 9)
    again["metadata"]["uid"] = "other"
    server.lists.append(listed(20, again))
    watched = watch()
    assert [watched.next() for _ in range(3)] == [
        ("a", None, "1"),
        ("a", "1", None),
        ("a", None, "9"),
    ]


def test_a_first_list_that_breaks_is_completed_as_differences(server, watch):
    """What was told of it before the break is not told again."""
    server.lists.extend(
        [
            listed(5, pod("a", 1), pod("b", 2), more="token"),
            (500, {"message": "later"}),
            listed(9, pod("b", 2), pod("c", 8)),
        ]
    )
    watched = watch()
    assert [watched.next() for _ in range(4)] == [
        ("a", None, "1"),
        ("b", None, "2"),
        ("a", "1", None),
        ("c", None, "8"),
    ]


def test_only_what_is_to_be_kept_is_remembered(server):
    """A handler is told everything once; the next change has what was kept of it before."""
    server.lists.append(listed(5, pod("a", 1, big="yes")))
    server.watches.append([event("MODIFIED", pod("a", 7, big="yes"))])
    changes = queue.Queue()

    def keep(item):
        slim = msgspec.structs.replace(item.metadata, labels={})
        return msgspec.structs.replace(item, metadata=slim)

    informer = Informer(server.api(timeout=5), PATH, Pod, changes.put, keep=keep)
    thread = informer.start()
    first, second = (changes.get(timeout=10) for _ in range(2))
    assert first.after.metadata.labels == {"big": "yes"}
    assert (second.before.metadata.labels, second.after.metadata.labels) == ({}, {"big": "yes"})
    informer.stop()
    server.watches.append(["end"])
    thread.join(10)
    assert [item.metadata.labels for item in informer.items()] == [{}]


def test_a_server_that_always_says_gone_is_not_hammered(server, watch):
    """The first relist is immediate, the next ones wait."""
    server.lists.extend([listed(5)] * 3)
    server.watches.extend([410] * 2)
    with structlog.testing.capture_logs() as logs:
        watch()
        requests(server, 5)
    assert [entry["in_s"] for entry in logs] == [0.02]


def test_a_success_ends_the_back_off(server, watch):
    """What failed long ago does not make the next failure's wait longer."""
    server.lists.extend([(500, {"message": "later"}), listed(5)])
    server.watches.extend([["end"], 500])
    with structlog.testing.capture_logs() as logs:
        watch()
        requests(server, 5)
    assert [entry["in_s"] for entry in logs] == [0.01, 0.01]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_the_handler_shows_in_readiness(server):
    """The thread ends, and nobody must take its old view for the present one."""
    server.lists.append(listed(5, pod("a", 1)))

    def broken(change):
        raise RuntimeError("bug")

    informer = Informer(server.api(timeout=5), PATH, Pod, broken)
    informer.start().join(10)
    assert informer.missing() == f"informer of {PATH} ended: RuntimeError('bug')"
