"""A small API server in memory for tests: objects with versions, lists, watches, and trouble."""

import json
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import kubernetes

from hamikit.cluster import Api, ApiError

Object = dict[str, Any]

LOSE_BEFORE, LOSE_AFTER, FAIL = "lose before", "lose after", "fail"
"""What may happen to a request: no effect and no answer, effect and no answer, 500."""
_WAIT_S = 0.5


class Store:
    """Objects by collection path (`/api/v1/pods`, also for namespaced ones) and `namespace/name`.

    Every write gets the next version and is kept for watches until `compact`. `on_write` is called
    with each event (type, collection, object) while the store is locked.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.objects: dict[str, dict[str, Object]] = {}
        self.version, self.oldest = 1, 1
        self.history: list[tuple[int, str, str, Object]] = []
        self.on_write: Callable[[str, str, Object], None] = lambda _type, _collection, _object: None

    def read(self, collection: str, key: str) -> Object:
        """A copy of an object; raises ApiError 404."""
        with self.changed:
            found = self.objects.get(collection, {}).get(key)
            if found is None:
                raise ApiError(404, "NotFound", f"{collection} {key} not found")
            return deepcopy(found)

    def items(self, collection: str) -> list[Object]:
        """Copies of all objects of a collection."""
        with self.changed:
            return deepcopy(list(self.objects.get(collection, {}).values()))

    def put(self, collection: str, value: Object) -> Object:
        """Create or replace an object; returns it as it is stored."""
        with self.changed:
            known = self.objects.setdefault(collection, {})
            key = key_of(value)
            self._tell("MODIFIED" if key in known else "ADDED", collection, value)
            known[key] = value
            return value

    def delete(self, collection: str, key: str) -> None:
        """Remove an object, if it is there."""
        with self.changed:
            value = self.objects.get(collection, {}).pop(key, None)
            if value is not None:
                self._tell("DELETED", collection, value)

    def patch(self, collection: str, key: str, body: Object) -> Object:
        """Merge into an object under the body's preconditions; raises ApiError 404, 409."""
        with self.changed:
            value = self.read(collection, key)
            for field in ("resourceVersion", "uid"):
                asked = body.get("metadata", {}).get(field)
                if asked not in (None, value["metadata"].get(field)):
                    raise ApiError(409, "Conflict", f"the object has another {field}")
            return self.put(collection, merged(value, body))

    def bind(self, key: str, body: Object) -> Object:
        """What a Binding does, its annotations and its uid included; raises ApiError 404, 409."""
        with self.changed:
            value = self.read("/api/v1/pods", key)
            meta = value["metadata"]
            if body["metadata"].get("uid", meta["uid"]) != meta["uid"]:
                raise ApiError(409, "Conflict", "Precondition failed: UID")
            if value["spec"].get("nodeName") or meta.get("deletionTimestamp"):
                raise ApiError(409, "Conflict", f"pod {key} is already assigned to a node")
            change = {
                "metadata": {"annotations": body["metadata"].get("annotations", {})},
                "spec": {"nodeName": body["target"]["name"]},
            }
            return self.put("/api/v1/pods", merged(value, change))

    def compact(self) -> None:
        """Forget the past: whoever resumes from there is told 410."""
        with self.changed:
            self.oldest = self.version
            self.history.clear()

    def _tell(self, type_: str, collection: str, value: Object) -> None:
        self.version += 1
        value["metadata"]["resourceVersion"] = str(self.version)
        self.on_write(type_, collection, value)
        self.history.append((self.version, collection, type_, deepcopy(value)))
        self.changed.notify_all()


def key_of(value: Object) -> str:
    """`namespace/name`, or the name of what has no namespace."""
    meta = value["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def merged(value: Object, change: Object) -> Object:
    """JSON merge patch (RFC 7386)."""
    result = dict(value)
    for key, part in change.items():
        if part is None:
            result.pop(key, None)
        elif isinstance(part, dict):
            result[key] = merged(result.get(key) or {}, part)
        else:
            result[key] = part
    return result


class ApiServer:
    """Serves a store over HTTP.

    `trouble` is asked about each request (method, path): one of the words above, an empty text, or
    an ApiError raised. `spread` turns a watch event into those that are sent (duplicates, old
    news). `strangers` are tokens nobody knows. While `down` is set every connection is cut.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.trouble: Callable[[str, str], str] = lambda _method, _path: ""
        self.spread: Callable[[Object], list[Object]] = lambda event: [event]
        self.strangers: set[str] = set()
        self.down, self.closing = threading.Event(), threading.Event()
        self.generation = 0
        handler = type("Handler", (_Handler,), {"server_side": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.cut()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def api(self, **options: Any) -> Api:
        """Our client, pointed here."""
        configuration = kubernetes.client.Configuration()
        configuration.host = f"http://127.0.0.1:{self._server.server_port}"
        return Api(configuration, **options)

    def cut(self) -> None:
        """End all watches as a broken connection does."""
        with self.store.changed:
            self.generation += 1
            self.store.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_side: ApiServer

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if query.get("watch"):
            self._watch(url.path, query)
        else:
            self._said(lambda: self._get(url.path, query))

    def do_POST(self) -> None:
        body = self._body()
        self._said(lambda: self._post(urlsplit(self.path).path, body))

    def do_PATCH(self) -> None:
        body = self._body()
        self._said(lambda: self._patch(urlsplit(self.path).path, body))

    def _said(self, action: Callable[[], Object]) -> None:
        side, word, lost, status = self.server_side, "", False, 200
        try:
            word = side.trouble(self.command, urlsplit(self.path).path)
            lost = side.down.is_set() or word == LOSE_BEFORE
            value = {} if lost else _failed() if word == FAIL else action()
        except ApiError as error:
            status, value = error.status, {"reason": error.reason, "message": error.message}
        if lost or word == LOSE_AFTER:
            self.close_connection = True
            return
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> Object:
        value: Object = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return value

    def _get(self, path: str, query: dict[str, str]) -> Object:
        store = self.server_side.store
        collection, key = _split(path)
        if key:
            return store.read(collection, key)
        with store.changed:
            items = [value for value in store.items(collection) if _selected(value, query)]
            return {"metadata": {"resourceVersion": str(store.version)}, "items": items}

    def _post(self, path: str, body: Object) -> Object:
        store = self.server_side.store
        if path.endswith("/binding"):
            return store.bind(_split(path.removesuffix("/binding"))[1], body)
        if path.endswith("reviews"):
            known = body["spec"].get("token") not in self.server_side.strangers
            return {"status": {"authenticated": known, "allowed": True}}
        collection, _ = _split(path)
        meta = body["metadata"]
        meta.setdefault("name", f"{meta.get('generateName', '')}{store.version}")
        return store.put(collection, body)

    def _patch(self, path: str, body: Object) -> Object:
        collection, key = _split(path.removesuffix("/status"))
        return self.server_side.store.patch(collection, key, body)

    def _watch(self, path: str, query: dict[str, str]) -> None:
        side = self.server_side
        collection, _ = _split(path)
        if side.down.is_set():
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in self._events(collection, int(query["resourceVersion"])):
            if event["type"] != "ERROR" and not _selected(event["object"], query):
                continue
            for sent in side.spread(event) if event["type"] != "ERROR" else [event]:
                data = json.dumps(sent).encode() + b"\n"
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        self.close_connection = True

    def _events(self, collection: str, since: int) -> Iterator[Object]:
        """What happens from a version on, until the connection is cut."""
        side, store = self.server_side, self.server_side.store
        generation = side.generation
        while not (side.down.is_set() or side.closing.is_set()):
            with store.changed:
                fresh = [entry for entry in store.history if entry[0] > since]
                gone = since < store.oldest
                if generation != side.generation:
                    return
                if not fresh and not gone:
                    store.changed.wait(_WAIT_S)
                    continue
            if gone:
                status = {"code": 410, "reason": "Expired", "message": "too old"}
                yield {"type": "ERROR", "object": status}
                return
            for version, where, type_, value in fresh:
                since = version
                if where == collection:
                    yield {"type": type_, "object": value}


def _failed() -> Object:
    raise ApiError(500, "InternalError", "trouble")


def _split(path: str) -> tuple[str, str]:
    """Collection and key: a namespaced object is kept in the collection of all namespaces."""
    parts = path.strip("/").split("/")
    root = 2 if parts[0] == "api" else 3
    head, tail = parts[:root], parts[root:]
    if tail[0] == "namespaces" and len(tail) > 2:
        namespace, kind, *name = tail[1:]
        key = f"{namespace}/{name[0]}" if name else ""
        return "/" + "/".join([*head, kind]), key
    return "/" + "/".join([*head, tail[0]]), tail[1] if len(tail) > 1 else ""


def _selected(value: Object, query: dict[str, str]) -> bool:
    wanted = query.get("labelSelector", "")
    if not wanted:
        return True
    key, _, text = wanted.partition("=")
    return bool(value["metadata"].get("labels", {}).get(key) == text)
