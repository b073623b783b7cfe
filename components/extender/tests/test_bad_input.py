"""Bad input over the wire: one clear line, never a wrong answer, never a stalled server."""

import http.client
import json
import socket

import msgspec
import pytest
from extender_kit import device, node_object
from extender_server import Server
from test_whole import Extender

POSTS = ("filter", "prioritize", "preempt", "bind", "simulate")
IN_ERROR = ("filter", "bind")
"""kube-scheduler reads what is wrong in the field Error of an answer with status 200."""
SLOW_CLIENTS = 80


@pytest.fixture(scope="module")
def extender():
    """One extender for all."""
    with Server(node_object("n", device("GPU-a"))) as server, Extender(server) as running:
        yield running


def send(extender, verb, body, method="POST"):
    """Status and the line that says what is wrong."""
    port = extender.people if verb == "simulate" else extender.verbs
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, f"/{verb}", body, {"Authorization": "Bearer good"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    value = json.loads(text)
    fields = ("Error", "error", "description", "title")
    return answer.status, next(value[field] for field in fields if field in value)


BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "an array": b"[1, 2]",
    "a text": b'"pod"',
    "wrong types": b'{"Pod": 3, "NodeNames": {}, "PodName": [], "kind": 7, "spec": 1}',
    "no UTF-8": b'{"Pod": "\xff\xfe"}',
    "deep": b"[" * 100_000,
    "deep objects": b'{"Pod":' * 50_000,
    "50 MB": b"x" * 50_000_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("verb", POSTS)
def test_what_is_no_question(extender, verb, body):
    """4xx, or a text in Error; the server lives on."""
    status, said = send(extender, verb, body)
    assert status == 200 if verb in IN_ERROR else 400 <= status < 500
    assert said
    assert "\n" not in said
    assert len(said) < 500
    assert extender.get("healthz") == "ok\n"


@pytest.mark.parametrize("verb", POSTS)
def test_wrong_methods(extender, verb):
    """405."""
    assert send(extender, verb, None, "GET")[0] == 405
    assert send(extender, verb, b"{}", "DELETE")[0] == 405


def test_unknown_paths(extender):
    """404 on every listener."""
    for verb in ("nothing", "filter/x", "../state"):
        assert send(extender, verb, b"{}")[0] == 404


def test_pods_and_nodes_that_are_not_there(extender):
    """A bind of nobody, to nowhere; a filter over unknown nodes."""
    nobody = {"PodName": "no", "PodNamespace": "default", "PodUID": "u", "Node": "n"}
    assert "cannot be read: 404" in extender.ask("bind", **nobody)["Error"]
    pod = extender.server.add("known")
    extender.seen(pod)
    assert extender.bind(pod, "nowhere").startswith("nowhere: node unregistered")
    found = extender.ask("filter", Pod=msgspec.to_builtins(pod), NodeNames=["nowhere"])
    assert found["FailedAndUnresolvableNodes"] == {"nowhere": "node unregistered"}
    assert found["NodeNames"] == []


def test_nodes_that_are_not_there_have_no_score_and_no_victims(extender):
    """They are worth nothing, and nobody is evicted from them; nor is somebody who is not there."""
    pod = msgspec.to_builtins(extender.server.add("stranger"))
    assert extender.ask("prioritize", Pod=pod, NodeNames=["nowhere"]) == [
        {"Host": "nowhere", "Score": 0}
    ]
    nobody = {"Pods": [{"UID": "nobody"}]}
    found = extender.ask("preempt", Pod=pod, NodeNameToMetaVictims={"nowhere": nobody, "n": nobody})
    assert list(found["NodeNameToMetaVictims"]) == ["n"]


def test_names_that_are_no_names(extender):
    """They become parts of paths of the API: nothing else may be read by them."""
    for name in ("../nodes/n", "x?watch=1", "a/b", "%2e%2e", ""):
        args = {"PodName": name, "PodNamespace": "default", "PodUID": "u", "Node": "n"}
        assert "is no name" in extender.ask("bind", **args)["Error"]
        args = {"PodName": "p", "PodNamespace": name, "PodUID": "u", "Node": "n"}
        assert "is no name" in extender.ask("bind", **args)["Error"]


def test_slow_clients(extender):
    """Those who never finish keep nobody else waiting, on any listener."""
    slow = []
    for port in (extender.verbs, extender.people, extender.status):
        for number in range(SLOW_CLIENTS):
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            half = b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
            client.sendall(half if number % 2 else b"POST /fil")
            slow.append(client)
    try:
        assert send(extender, "filter", b"{}") == (200, "extender args missing pod")
        assert send(extender, "simulate", b"{}")[0] == 400
        assert extender.get("healthz") == "ok\n"
    finally:
        for client in slow:
            client.close()
