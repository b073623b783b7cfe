"""An API server with one node, its pods and events: as much as the plugin asks for, over HTTP."""

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import kubernetes
import msgspec

from hamikit import names
from hamikit.cluster import Api

RUNTIME = "containerd://2.2.1"


class ApiServer:
    """Objects in memory; `patches` and `events` hold what was written, in order.

    `writes` holds every PATCH that arrived: its path and the annotations in it.
    """

    def __init__(self, *pods, annotations=None, runtime=RUNTIME):
        self.pods = {pod.metadata.uid: pod for pod in pods}
        self.annotations = dict(annotations or {})
        self.runtime, self.version = runtime, 1
        self.patches, self.events, self.queries = queue.Queue(), queue.Queue(), queue.Queue()
        self.pod_patches, self.writes, self.faults = queue.Queue(), queue.Queue(), []
        self._watchers, self._node_watchers = [], []
        self._closing, self._watched = threading.Event(), threading.Event()
        self._node_watched = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self):
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def api(self):
        """Our client, pointed here."""
        configuration = kubernetes.client.Configuration()
        configuration.host = self.url
        return Api(configuration)

    def kubeconfig(self, path):
        """A file that points a process here."""
        cluster = {"name": "c", "cluster": {"server": self.url}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        config = {
            "clusters": [cluster],
            "contexts": [context],
            "users": [{"name": "u", "user": {}}],
        }
        path.write_text(json.dumps({**config, "current-context": "x"}))
        return path

    def put(self, pod):
        """A pod appears or changes."""
        kind = "MODIFIED" if pod.metadata.uid in self.pods else "ADDED"
        self.pods[pod.metadata.uid] = pod
        self._tell(kind, pod)

    def remove(self, pod):
        """A pod is gone."""
        del self.pods[pod.metadata.uid]
        self._tell("DELETED", pod)

    def _tell(self, kind, pod):
        event = {"type": kind, "object": self.plain(pod)}
        self._watched.wait(10)  # a change before the first watch would be nobody's news
        for watcher in self._watchers:
            watcher.put(event)

    def plain(self, pod):
        """A pod as JSON, with a version of its own."""
        self.version += 1
        return {**msgspec.to_builtins(pod), **_versioned(pod, self.version)}

    def list(self, query):
        """The pods that a label selector selects."""
        pods = [
            self.plain(pod)
            for pod in list(self.pods.values())
            if not query.get("labelSelector") or names.LABEL_DEVICE_POD in pod.metadata.labels
        ]
        return {"metadata": {"resourceVersion": str(self.version)}, "items": pods}

    def fail(self, method, path, status=500):
        """Answer the next request of this kind, to a path with this part, with an error."""
        self.faults.append((method, path, status))

    def fault(self, method, path):
        """The error that a request is to get, once."""
        for found in self.faults:
            if method == found[0] and found[1] in path:
                self.faults.remove(found)
                return found[2]
        return None

    def node(self):
        """The node."""
        return {
            "metadata": {
                "name": "n1",
                "uid": "n1",
                "annotations": dict(self.annotations),
                "resourceVersion": str(self.version),
            },
            "status": {"nodeInfo": {"containerRuntimeVersion": self.runtime}},
        }

    def annotate(self, **changes):
        """Somebody else changes the node's annotations; None removes one."""
        self.version += 1
        merge(self.annotations, {getattr(names, key): value for key, value in changes.items()})
        self._node_watched.wait(10)
        for watcher in self._node_watchers:
            watcher.put({"type": "MODIFIED", "object": self.node()})

    def patch(self, body):
        """A merge patch of the node's annotations; the error's status, or None."""
        metadata = body["metadata"]
        if metadata.get("resourceVersion", str(self.version)) != str(self.version):
            return 409
        self.version += 1
        merge(self.annotations, metadata["annotations"])
        self.patches.put(metadata["annotations"])
        for watcher in self._node_watchers:
            watcher.put({"type": "MODIFIED", "object": self.node()})
        return None

    def pod(self, path):
        """The pod of a path `/api/v1/namespaces/<namespace>/pods/<name>`, or None."""
        _, namespace, _, name = path.rsplit("/", 3)
        found = (pod.metadata for pod in self.pods.values())
        uid = next((m.uid for m in found if (m.namespace, m.name) == (namespace, name)), None)
        return self.pods.get(uid)

    def patch_pod(self, pod, body):
        """A merge patch of a pod's annotations; the error's status, or None."""
        metadata = body["metadata"]
        if metadata.get("uid", pod.metadata.uid) != pod.metadata.uid:
            return 409
        merge(pod.metadata.annotations, metadata["annotations"])
        self.pod_patches.put(metadata["annotations"])
        self._tell("MODIFIED", pod)
        return None

    def watch(self, send, *, nodes):
        """Tell of changes until the server closes."""
        news = queue.Queue()
        if nodes:
            self._node_watchers.append(news)
            self._node_watched.set()
            return self._tell_on(news, send)
        self._watchers.append(news)
        self._watched.set()
        return self._tell_on(news, send)

    def _tell_on(self, news, send):
        while not self._closing.is_set():
            try:
                send(news.get(timeout=0.05))
            except queue.Empty:
                continue


def merge(annotations, changes):
    """Lay a merge patch over annotations."""
    for key, value in changes.items():
        if value is None:
            annotations.pop(key, None)
        else:
            annotations[key] = value


def _versioned(pod, version):
    metadata = {**msgspec.to_builtins(pod.metadata), "resourceVersion": str(version)}
    return {"metadata": {key: value for key, value in metadata.items() if value is not None}}


def _handler(server):  # noqa: C901 - one small method per verb
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Quiet."""

        def answer(self):
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query))
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(data) if data else None
            server.queries.put((self.command, url.path, query))
            if self.command == "PATCH":
                server.writes.put((url.path, set(body["metadata"]["annotations"])))
            status = server.fault(self.command, url.path)
            if status is not None:
                self.say({"reason": "Injected", "message": "a fault"}, status)
            elif query.get("watch"):
                self.stream(nodes=url.path == "/api/v1/nodes")
            elif self.command == "POST":
                server.events.put(body)
                self.say({})
            elif url.path == "/api/v1/nodes":
                metadata = {"resourceVersion": str(server.version)}
                self.say({"metadata": metadata, "items": [server.node()]})
            elif url.path.startswith("/api/v1/nodes/"):
                status = server.patch(body) if self.command == "PATCH" else None
                self.say(server.node(), status or 200)
            elif url.path.startswith("/api/v1/namespaces/"):
                self.one(server.pod(url.path), body)
            else:
                self.say(server.list(query))

        def one(self, pod, body):
            if pod is None:
                return self.say({"reason": "NotFound", "message": "no such pod"}, 404)
            status = server.patch_pod(pod, body) if self.command == "PATCH" else None
            return self.say(server.plain(pod), status or 200)

        do_GET = do_POST = do_PATCH = answer  # noqa: N815

        def say(self, value, status=200):
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def stream(self, *, nodes):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                server.watch(self.send, nodes=nodes)
            except OSError:
                self.close_connection = True

        def send(self, event):
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.flush()

    return Handler
