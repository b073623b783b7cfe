"""Behaviour of hamikit.cluster: requests to the API server and what can go wrong with them."""

import json
import socket
import threading

import kubernetes
import pytest

from hamikit.cluster import Api, ApiError, Unreachable
from hamikit.objects import Node


def test_get_decodes_and_carries_credentials(server):
    """Unknown fields are skipped; the token of the configuration is sent."""
    server.lists.append({"kind": "Node", "metadata": {"name": "n1"}, "spec": {"podCIDR": "x"}})
    node = server.api().get("/api/v1/nodes/n1", Node, {"resourceVersion": 0})
    method, path, query, headers, _ = server.seen.get_nowait()
    assert node.metadata.name == "n1"
    assert (method, path, query) == ("GET", "/api/v1/nodes/n1", {"resourceVersion": "0"})
    assert headers["authorization"] == "Bearer secret"


def test_create_and_patch_send_json(server):
    """A merge patch says so in its content type."""
    server.lists.extend([{}, {}])
    api = server.api()
    api.create("/api/v1/x", {"a": 1}, {"timeout": "3s"})
    api.patch("/api/v1/x/y", {"metadata": {"annotations": {"k": None}}})
    method, _, query, headers, body = server.seen.get_nowait()
    assert (method, query, headers["Content-Type"]) == (
        "POST",
        {"timeout": "3s"},
        "application/json",
    )
    assert json.loads(body) == {"a": 1}
    method, _, _, headers, body = server.seen.get_nowait()
    assert (method, headers["Content-Type"]) == ("PATCH", "application/merge-patch+json")
    assert json.loads(body) == {"metadata": {"annotations": {"k": None}}}


def test_a_refusal_has_status_reason_and_message(server):
    """What the API server says in its Status object."""
    server.lists.append((409, {"kind": "Status", "reason": "Conflict", "message": "changed"}))
    with pytest.raises(ApiError, match="409 Conflict: changed") as caught:
        server.api().get("/x", Node)
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")


def test_a_refusal_that_is_no_status_keeps_its_text(server):
    """Proxies answer in their own words."""
    server.lists.append((502, b"<html>bad gateway"))
    with pytest.raises(ApiError, match="502 : <html>bad gateway"):
        server.api().get("/x", Node)


def test_a_redirect_is_a_refusal(server):
    """The API server never sends us elsewhere; whoever does is not it."""
    server.lists.append((307, b""))
    with pytest.raises(ApiError, match="307"):
        server.api().get("/x", Node)


def test_no_listener_is_unreachable():
    """Nobody listens: nothing happened, but callers must not rely on that."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = kubernetes.client.Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    with pytest.raises(Unreachable, match="GET /x"):
        Api(configuration).get("/x", Node)


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_half_an_answer_is_unreachable(said, method):
    """Whether a write happened is unknown; nothing is sent twice behind the caller's back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        configuration = kubernetes.client.Configuration()
        configuration.host = f"http://127.0.0.1:{listener.getsockname()[1]}"
        api = Api(configuration, timeout=5)
        accepted = []

        def answer():
            peer, _ = listener.accept()
            with peer:
                accepted.append(peer.recv(65536))
                peer.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable):
            api.request(method, "/x", body={})
        thread.join()
        listener.settimeout(0.05)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_silent_server_is_unreachable_after_the_time_limit():
    """The limit of the request holds, not the operating system's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        configuration = kubernetes.client.Configuration()
        configuration.host = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"read timeout=0\.05"):
            Api(configuration).request("GET", "/x", timeout=0.05)


def test_a_refused_watch_is_an_api_error(server):
    """A watch is refused like any request."""
    server.watches.append(403)
    with pytest.raises(ApiError, match="403"):
        server.api().stream("/x", {"watch": "1"}, 5)
