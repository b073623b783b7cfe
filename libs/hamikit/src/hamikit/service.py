"""What all our daemons do alike: a status listener, readiness, and an orderly end."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

import falcon
import prometheus_client
import waitress
from prometheus_client import CollectorRegistry

from hamikit.exposition import render
from hamikit.inline import AtOnce, answer_inline

App = falcon.App[falcon.Request, falcon.Response]


class Lifecycle:
    """Whether the process is to go on, and what it still waits for before it is ready."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._waits: dict[str, Callable[[], str | None]] = {}
        self._notes: dict[str, Callable[[], str | None]] = {}

    def ready_when(self, name: str, missing: Callable[[], str | None]) -> None:
        """Add a condition: `missing` returns what is missing, or None when it is met."""
        self._waits[name] = missing

    def missing(self) -> list[str]:
        """What keeps the process from being ready, one line each; empty when ready."""
        if self.stopping.is_set():
            return ["stopping"]
        found = ((name, missing()) for name, missing in self._waits.items())
        return [f"{name}: {what}" for name, what in found if what]

    def note_when(self, name: str, trouble: Callable[[], str | None]) -> None:
        """Add a remark for /readyz: `trouble` tells what is wrong while we are ready, or None."""
        self._notes[name] = trouble

    def notes(self) -> list[str]:
        """What is wrong although the process is ready, one line each."""
        found = ((name, trouble()) for name, trouble in self._notes.items())
        return [f"{name}: {what}" for name, what in found if what]

    def stop(self) -> None:
        """Ask the process to end; readiness goes first."""
        self.stopping.set()

    def stop_on_signals(self) -> None:
        """End on SIGTERM and SIGINT. Call it from the main thread."""

        def handle(_number: int, _frame: FrameType | None) -> None:
            # The main thread may be inside Event.wait with the lock that set() needs.
            threading.Thread(target=self.stop).start()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)


class _Health:
    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.text = "ok\n"


class _Ready:
    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        missing = self._lifecycle.missing()
        response.content_type = falcon.MEDIA_TEXT
        response.status = falcon.HTTP_503 if missing else falcon.HTTP_200
        response.text = "\n".join([*(missing or ["ok"]), *self._lifecycle.notes()]) + "\n"


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = prometheus_client.CONTENT_TYPE_LATEST
        response.data = render(self._registry)


def status_app(lifecycle: Lifecycle, registry: CollectorRegistry) -> App:
    """The application behind /healthz, /readyz and /metrics."""
    app: App = falcon.App()
    app.add_route("/healthz", _Health())
    app.add_route("/readyz", _Ready(lifecycle))
    app.add_route("/metrics", _Metrics(registry))
    return app


MAX_REQUEST = 64 * 2**20
"""Bytes of a request body that are taken in; an application may well want less."""
MAX_BUFFERED = 2**30
RECEIVED_AT_ONCE = 96 * 2**10
"""Bytes; the names of 5,000 nodes in one piece. waitress' 8 KiB make ten turns of its loop, and
from 128 KiB on malloc asks the kernel each time."""
CONNECTIONS = 1000
"""Silent clients are dropped after two minutes; so many of them must not keep a probe out."""


def serve(
    app: App, host: str, port: int, *, threads: int = 4, at_once: AtOnce | None = None
) -> threading.Thread:
    """Serve a WSGI application in a thread of its own; a port that is taken raises OSError here.

    Paths for which `at_once` holds are answered by the thread that reads, others by one of
    `threads`; only for clients that are trusted.
    """
    # Only who is trusted may fill so much memory: kube-scheduler, beside us.
    large = {"recv_bytes": RECEIVED_AT_ONCE, "outbuf_high_watermark": MAX_BUFFERED}
    server = waitress.create_server(
        app,
        host=host,
        port=port,
        threads=threads,
        ident=None,
        connection_limit=CONNECTIONS,
        max_request_body_size=MAX_REQUEST,
        asyncore_use_poll=True,  # select() ends at descriptor 1024
        # What is longer goes through a temporary file, and our containers have no place for one.
        inbuf_overflow=MAX_BUFFERED,
        outbuf_overflow=MAX_BUFFERED,
        **(large if at_once else {}),
    )
    if at_once:
        answer_inline(server, at_once)
    thread = threading.Thread(target=server.run, name=f"http-{port}", daemon=True)
    thread.start()
    return thread
