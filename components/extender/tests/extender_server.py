"""The fake cluster behind HTTP: lists, watches, reads, bindings and events, for whole runs."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import kubernetes
import msgspec
from extender_cluster import FakeCluster

from hamikit.cluster import Api, ApiError, Unreachable
from hamikit.objects import Pod


class Server:
    """Serves a FakeCluster and some nodes; `events` are those posted, by arrival."""

    def __init__(self, *nodes):
        self.cluster, self.nodes, self.events = FakeCluster(), list(nodes), []
        self.quotas = []
        self.changed = threading.Condition()
        self.history = []
        self.closing = False
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"home": self})
        )
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def api(self):
        """Our client, pointed here."""
        configuration = kubernetes.client.Configuration()
        configuration.host = f"http://127.0.0.1:{self._server.server_port}"
        return Api(configuration)

    def publish(self):
        """Watchers are told what has happened. `changed` is held."""
        while self.cluster.events:
            kind, pod = self.cluster.events.popleft()
            value = msgspec.to_builtins(pod)
            value["metadata"]["resourceVersion"] = str(len(self.history) + 2)
            known = any(
                pod.metadata.uid == old["object"]["metadata"]["uid"] for old in self.history
            )
            type_ = "DELETED" if kind == "gone" else "MODIFIED" if known else "ADDED"
            self.history.append({"type": type_, "object": value})
        self.changed.notify_all()

    def add(self, name, *containers, **settings):
        """Create a pod."""
        with self.changed:
            pod = self.cluster.add(name, *containers, **settings)
            self.publish()
        return pod

    def delete(self, name):
        """Delete a pod."""
        with self.changed:
            self.cluster.delete(name)
            self.publish()

    def wait_for(self, condition):
        """Until `condition()` holds; an error after ten seconds."""
        with self.changed:
            assert self.changed.wait_for(condition, 10)


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client to the server `home`."""

    protocol_version = "HTTP/1.1"
    home = None

    def log_message(self, *_):
        """Quiet."""

    def do_GET(self):
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        collection = url.path in ("/api/v1/pods", "/api/v1/nodes", "/api/v1/resourcequotas")
        if collection and query.get("watch"):
            self.watch(url.path, int(query["resourceVersion"]))
        elif collection:
            self.answer(self.listed(url.path, query))
        else:
            with self.home.changed:
                self.said(lambda: msgspec.to_builtins(self.home.cluster.get(url.path, Pod)))

    def do_POST(self):
        url = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if url.path.endswith("/events"):
            with self.home.changed:
                self.home.events.append(body)
                self.home.changed.notify_all()
            self.answer(body)
            return
        if url.path.endswith("reviews"):
            known = body["spec"].get("token", "good") == "good"
            self.answer({"status": {"authenticated": known, "allowed": True}})
            return
        query = dict(parse_qsl(url.query))
        with self.home.changed:
            self.said(
                lambda: json.loads(
                    self.home.cluster.request("POST", url.path, query=query, body=body, timeout=5)
                )
            )
            self.home.publish()

    def said(self, action):
        try:
            self.answer(action())
        except ApiError as error:
            value = {"reason": error.reason, "message": error.message}
            self.answer(value, error.status)
        except Unreachable:
            self.close_connection = True

    def listed(self, path, query):
        with self.home.changed:
            version = str(len(self.home.history) + 1)
            if path == "/api/v1/nodes":
                items = self.home.nodes
            elif path == "/api/v1/resourcequotas":
                items = self.home.quotas
            else:
                assert query["labelSelector"] == "hami.io/device-pod=true"
                items = [msgspec.to_builtins(pod) for pod in self.home.cluster.pods.values()]
        return {"metadata": {"resourceVersion": version}, "items": items}

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def watch(self, path, version):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        seen = version - 1
        while True:
            with self.home.changed:
                while not self.home.closing and (
                    "pods" not in path or len(self.home.history) <= seen
                ):
                    self.home.changed.wait(1)
                if self.home.closing:
                    self.close_connection = True
                    return
                fresh, seen = self.home.history[seen:], len(self.home.history)
            for event in fresh:
                data = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
