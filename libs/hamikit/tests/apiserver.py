"""A scripted API server over HTTP: each request takes the next prepared answer of its kind."""

import json
import queue
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import kubernetes

from hamikit.cluster import Api


class FakeApiServer:
    """Answers lists from `lists` and watches from `watches`; keeps every request in `seen`.

    A list is a JSON object or `(status, object)`, or a function that returns one; a watch is an
    iterable of steps: an event to send, an Event to wait for, `end`, or `break` to cut the
    connection. With nothing left to say a watch stays open until the server is closed.
    """

    def __init__(self):
        self.lists, self.watches = deque(), deque()
        self.seen = queue.Queue()
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def api(self, **options):
        """Our client, pointed here with a token."""
        configuration = kubernetes.client.Configuration()
        configuration.host = f"http://127.0.0.1:{self._server.server_port}"
        configuration.api_key = {"authorization": "secret"}
        configuration.api_key_prefix = {"authorization": "Bearer"}
        return Api(configuration, **options)


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Quiet."""

        def answer(self):
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.seen.put((self.command, url.path, query, dict(self.headers), body))
            if query.get("watch"):
                self.watch(server.watches.popleft() if server.watches else ())
                return
            said = server.lists.popleft()
            said = said() if callable(said) else said
            status, value = said if isinstance(said, tuple) else (200, said)
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_PUT = answer  # noqa: N815

        def watch(self, steps):
            if isinstance(steps, int):
                self.send_response(steps)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for step in steps:
                if step == "break":
                    self.close_connection = True
                    return
                if step == "end":
                    self.wfile.write(b"0\r\n\r\n")
                    return
                if isinstance(step, threading.Event):
                    step.wait(10)
                    continue
                data = step if isinstance(step, bytes) else json.dumps(step).encode() + b"\n"
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()
            server.closing.wait(30)
            self.close_connection = True

    return Handler
