"""A local, always current copy of a set of API objects, kept by list and watch."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import structlog
import urllib3

from hamikit.cluster import Api, ApiError, Unreachable
from hamikit.objects import ListMeta, Metadata, ObjectMeta

log = structlog.get_logger()

# The server ends each watch after this long and we resume from where we were; a silent connection
# is noticed soon after.
WATCH_S = 45
READ_TIMEOUT_S = WATCH_S + 10
PAGE = 500
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class HasMetadata(Protocol):
    """Any Kubernetes object."""

    @property
    def metadata(self) -> Metadata:
        """The object's metadata."""


T = TypeVar("T", bound=HasMetadata)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What happened to an object; `before` is None when it is new, `after` None when it is gone."""

    before: T | None
    after: T | None

    @property
    def present(self) -> T:
        """The object's last known form."""
        value = self.after if self.after is not None else self.before
        if value is None:
            raise ValueError("a change has at least one side")
        return value


class _WatchEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


class Informer(Generic[T]):
    """Calls `on_change` from one thread for each difference, first for everything there is.

    `path` is a collection such as `/api/v1/pods`, `kind` one of `hamikit.objects`. A relist (after
    a gap) is turned into the same changes, so a handler needs no other case. `keep` says what of an
    object is remembered once it has been told; its UID and resource version have to be.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        kind: type[T],
        on_change: Callable[[Change[T]], None],
        *,
        query: Mapping[str, str | int] | None = None,
        keep: Callable[[T], T] | None = None,
        now: Callable[[], float] = time.monotonic,
        backoff_s: Sequence[float] = _BACKOFF_S,
    ) -> None:
        self._api, self._path, self._query, self._now = api, path, dict(query or {}), now
        self._on_change, self._backoff_s, self._keep = on_change, backoff_s, keep
        self._decode_object = msgspec.json.Decoder(kind).decode
        self._decode_event = msgspec.json.Decoder(_WatchEvent).decode
        self._decode_list = msgspec.json.Decoder(_list_type(kind)).decode
        self._items: dict[str, T] = {}
        self._version = ""
        self._fault = ""
        self._stop = threading.Event()
        self.synced = threading.Event()
        self.last_contact = now()
        """When the server last told us anything, by `now`."""

    def items(self) -> list[T]:
        """All objects as of now."""
        return list(self._items.values())

    def start(self) -> threading.Thread:
        """Run in a thread of its own until `stop`."""
        thread = threading.Thread(target=self.run, name=f"informer {self._path}", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End after the present event or watch."""
        self._stop.set()

    def missing(self) -> str | None:
        """What is missing until the copy is complete and kept; None when it is."""
        if self._fault:
            return f"informer of {self._path} ended: {self._fault}"
        return None if self.synced.is_set() else f"first list of {self._path}"

    def run(self) -> None:
        """List, then watch, then resume, until `stop`; a fault of the handler ends it."""
        try:
            self._run()
        except Exception as error:
            # The thread dies alone; readiness must show that the view is no longer kept.
            self._fault = repr(error)
            raise

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self.step()
                failures = 0
            except (ApiError, Unreachable, msgspec.MsgspecError) as error:
                gone = isinstance(error, ApiError) and error.status == 410
                if gone:
                    self._version = ""
                failures += 1
                if self._stop.is_set():
                    return
                if gone and failures == 1:
                    continue  # the ordinary gap; a server that keeps saying so has to wait
                delay = self._backoff_s[min(failures, len(self._backoff_s)) - 1]
                log.warning("informer retries", path=self._path, error=str(error), in_s=delay)
                self._stop.wait(delay)

    def step(self) -> None:
        """One list if there is a gap to fill, then one watch to its end."""
        if not self._version:
            self._list()
            self.synced.set()
        self._watch()

    def _list(self) -> None:
        """Tell the difference to what is there; what is gone first, it makes room for the rest."""
        # All pods of a large cluster at once need much memory: the first list is told page by page.
        first = not self._items
        seen: set[str] = set()
        changed: dict[str, T] = {}
        query: dict[str, str | int] = {**self._query, "limit": PAGE}
        while True:
            page = self._decode_list(self._api.request("GET", self._path, query=query, timeout=60))
            for item in page.items:
                uid = item.metadata.uid
                seen.add(uid)
                if first:
                    self._apply(uid, item)
                elif self._differs(uid, item):
                    changed[uid] = item
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        for uid in self._items.keys() - seen:
            self._apply(uid, None)
        for uid, item in changed.items():
            self._apply(uid, item)
        self._version = page.metadata.resource_version
        self.last_contact = self._now()

    def _differs(self, uid: str, item: T) -> bool:
        before = self._items.get(uid)
        return before is None or _version(before) != _version(item)

    def _watch(self) -> None:
        query = {
            **self._query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": WATCH_S,
        }
        response = self._api.stream(self._path, query, READ_TIMEOUT_S)
        self.last_contact = self._now()
        with response:
            for line in _lines(response):
                self._event(line)
                if self._stop.is_set():
                    return

    def _event(self, line: bytes) -> None:
        event = self._decode_event(line)
        self.last_contact = self._now()
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=dict[str, Any])
            raise ApiError(int(status.get("code", 500)), str(status.get("reason")), str(status))
        if event.type == "BOOKMARK":
            bookmark = msgspec.json.decode(event.object, type=ObjectMeta)
            self._version = bookmark.metadata.resource_version
            return
        item = self._decode_object(event.object)
        self._apply(item.metadata.uid, None if event.type == "DELETED" else item, last=item)
        self._version = item.metadata.resource_version

    def _apply(self, uid: str, after: T | None, *, last: T | None = None) -> None:
        before = self._items.get(uid)
        if after is None:
            self._items.pop(uid, None)
            before = last if last is not None else before
        else:
            if not self._differs(uid, after):
                return
            self._items[uid] = after
        if before is not None or after is not None:
            self._on_change(Change(before, after))
        if after is not None and self._keep is not None:
            self._items[uid] = self._keep(after)


def _version(item: HasMetadata) -> str:
    return item.metadata.resource_version


def _list_type(kind: type[Any]) -> Any:
    items: Any = list[kind]  # type: ignore[valid-type]
    name = f"{kind.__name__}List"
    return msgspec.defstruct(name, [("metadata", ListMeta, ListMeta()), ("items", items, [])])


def _lines(response: Any) -> Iterator[bytes]:
    """Lines of a chunked answer as they come; ends where the server ends the watch.

    Raises:
        Unreachable: the connection broke or stayed silent for too long.
    """
    pending = b""
    try:
        # stream() would wait for a full block; read1 hands over what has arrived.
        while chunk := response.read1():
            *complete, pending = (pending + chunk).split(b"\n")
            yield from filter(None, complete)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unreachable(f"watch: {error}") from error
