"""Behaviour of hamikit.inline: who answers which request, and that nobody waits for another."""

import contextlib
import http.client
import os
import resource
import socket
import threading

import falcon
import pytest

from hamikit.service import serve

BLOCK = b"x" * 2**20
LONG_MIB = 24
DEADLINE_S = 20
SELECT_ENDS = 1024


class Desk:
    """An application; /slow is answered when `let` is set, /long with many MiB."""

    def __init__(self):
        self.let = threading.Event()
        app = falcon.App()
        app.add_sink(self.answer)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        quick = ("/quick", "/long").__contains__
        serve(app, "127.0.0.1", self.port, threads=2, at_once=quick)

    def answer(self, request, response, **_):
        """The path and the thread that answers."""
        body = request.bounded_stream.read()
        if request.path == "/slow":
            assert self.let.wait(DEADLINE_S)
        said = f"{request.path} {len(body)} {threading.current_thread().name}".encode()
        response.data = BLOCK * LONG_MIB if request.path == "/long" else said

    def ask(self, path, body=b""):
        """One question on a connection of its own."""
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        ) as client:
            client.request("POST", path, body)
            return client.getresponse().read().decode()

    def connect(self):
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)


@pytest.fixture
def desk():
    """A running application; nobody waits in it afterwards."""
    found = Desk()
    yield found
    found.let.set()


def request(path):
    """One question without a body."""
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def answers(client, count):
    """The bodies of so many answers on one connection, in order."""
    found = []
    stream = client.makefile("rb")
    for _ in range(count):
        length = 0
        assert b" 200 " in stream.readline()
        while (line := stream.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        found.append(stream.read(length))
    return found


def test_the_reading_thread_answers_what_waits_for_nothing(desk):
    """Others get a thread of their own, whatever their length."""
    assert desk.ask("/quick", b"y" * 500_000) == f"/quick 500000 http-{desk.port}"
    assert desk.ask("/other", b"y" * 500_000).startswith("/other 500000 waitress-")


def test_nobody_waits_for_a_slow_answer(desk):
    """A bind waits for the API server while the next pod is filtered."""
    with desk.connect() as waiting:
        waiting.sendall(request("/slow"))
        assert desk.ask("/quick").startswith("/quick")
        desk.let.set()
        assert answers(waiting, 1)[0].startswith(b"/slow")


def test_several_questions_at_once_on_one_connection(desk):
    """They are answered in their order, whoever answers them."""
    with desk.connect() as client:
        client.sendall(b"".join(map(request, ("/quick", "/slow", "/quick", "/other", "/quick"))))
        assert answers(client, 1)[0].startswith(b"/quick")
        desk.let.set()
        said = [body.split()[0] for body in answers(client, 4)]
    assert said == [b"/slow", b"/quick", b"/other", b"/quick"]


def test_a_client_that_does_not_read_holds_up_nobody(desk):
    """Not even where more is asked than the kernel and waitress like to keep for it."""
    with desk.connect() as idle:
        idle.sendall(request("/long") + request("/long") + request("/quick"))
        assert desk.ask("/quick").startswith("/quick")
        bodies = answers(idle, 3)
    assert [len(body) for body in bodies[:2]] == [LONG_MIB * 2**20] * 2
    assert bodies[2].startswith(b"/quick")


def test_a_client_that_goes_away(desk):
    """Its answer has nowhere to go; the next one is served."""
    for _ in range(3):
        with desk.connect() as client:
            client.sendall(request("/long"))
    assert desk.ask("/quick").startswith("/quick")


def test_what_is_no_http(desk):
    """It is answered as such, and the reader goes on."""
    with desk.connect() as client:
        client.sendall(b"hello\r\n\r\n")
        assert b"400" in client.recv(4096)
    assert desk.ask("/quick").startswith("/quick")


def test_descriptors_beyond_the_end_of_select(desk):
    """Silent clients and connections of our own may well be more than 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * SELECT_ENDS
    assert hard == resource.RLIM_INFINITY or hard >= wanted, f"only {hard} files may be open"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    held = []
    try:
        while not held or held[-1] <= SELECT_ENDS:
            held.append(os.dup(0))
        assert desk.ask("/quick").startswith("/quick")
        assert desk.ask("/other").startswith("/other")
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
