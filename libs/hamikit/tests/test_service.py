"""Behaviour of hamikit.service: health, readiness, metrics, an orderly end."""

import os
import signal
import urllib.request
from socket import create_server

import falcon.testing
import pytest
from prometheus_client import CollectorRegistry, Counter

from hamikit.service import Lifecycle, serve, status_app


def client(lifecycle, registry=None):
    """Ask the application without a socket."""
    return falcon.testing.TestClient(status_app(lifecycle, registry or CollectorRegistry()))


def test_ready_only_when_nothing_is_missing():
    """The answer lists what is missing, for whoever asks why."""
    lifecycle = Lifecycle()
    gaps = {"pods": "first list", "port": None}
    lifecycle.ready_when("pods", lambda: gaps["pods"])
    lifecycle.ready_when("port", lambda: gaps["port"])
    answer = client(lifecycle).simulate_get("/readyz")
    assert (answer.status_code, answer.text) == (503, "pods: first list\n")
    gaps["pods"] = None
    answer = client(lifecycle).simulate_get("/readyz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_trouble_that_does_not_keep_us_from_work_is_told():
    """Ready all the same, or one bad file would take every replica out of service."""
    lifecycle, trouble = Lifecycle(), ["line 3: no number"]
    lifecycle.note_when("config", lambda: trouble[0])
    answer = client(lifecycle).simulate_get("/readyz")
    assert (answer.status_code, answer.text) == (200, "ok\nconfig: line 3: no number\n")
    trouble[0] = None
    assert client(lifecycle).simulate_get("/readyz").text == "ok\n"


def test_a_stopping_process_is_alive_but_not_ready():
    """Readiness goes first, so that nobody sends us more."""
    lifecycle = Lifecycle()
    lifecycle.stop()
    assert client(lifecycle).simulate_get("/readyz").status_code == 503
    assert client(lifecycle).simulate_get("/healthz").status_code == 200


def test_sigterm_asks_to_stop():
    """The handler sets the event and does nothing else."""
    lifecycle = Lifecycle()
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        lifecycle.stop_on_signals()
        os.kill(os.getpid(), signal.SIGTERM)
        assert lifecycle.stopping.wait(5)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_metrics_come_from_the_given_registry():
    """No global registry."""
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc()
    answer = client(Lifecycle(), registry).simulate_get("/metrics")
    assert "things_total 1.0" in answer.text


def test_serve_answers_over_tcp_and_a_taken_port_is_an_error():
    """The caller learns at once, not a thread later."""
    with create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            serve(status_app(Lifecycle(), CollectorRegistry()), "127.0.0.1", port)
    serve(status_app(Lifecycle(), CollectorRegistry()), "127.0.0.1", port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
        assert answer.read() == b"ok\n"


def test_long_bodies_need_no_temporary_file(monkeypatch):
    """Our containers have no writable place: 2 MiB in and out stay in memory."""

    class Echo:
        def on_post(self, request, response):
            response.data = request.bounded_stream.read()

    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    app = falcon.App()
    app.add_route("/echo", Echo())
    with create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    serve(app, "127.0.0.1", port)
    body = b"x" * 2**21
    url = f"http://127.0.0.1:{port}/echo"
    with urllib.request.urlopen(url, body, timeout=10) as answer:
        assert answer.read() == body
