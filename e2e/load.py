"""Creations without end, and every one that failed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hamikit.cluster import Api, ApiError, Unreachable


@dataclass
class Load:
    """What came of the creations so far."""

    done: int = 0
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, api: Api, namespace: str, body: Any) -> None:
        """Create until told to stop; a dry run, which passes through admission all the same."""
        while not self._stop.is_set():
            failure = ""
            try:
                api.request(
                    "POST",
                    f"/api/v1/namespaces/{namespace}/pods",
                    query={"dryRun": "All"},
                    body=body,
                    timeout=30,
                )
            except (ApiError, Unreachable) as error:
                failure = str(error)
            with self._lock:
                self.done += 1
                if failure:
                    self.failures.append(failure)

    def stop(self) -> None:
        """After the creation under way."""
        self._stop.set()


@contextmanager
def creations(namespace: str, body: Any, *, threads: int = 4) -> Iterator[Load]:
    """A load on the API server that KUBECONFIG names for as long as the block runs."""
    load, api = Load(), Api.from_environment(timeout=30)
    workers = [
        threading.Thread(target=load.run, args=(api, namespace, body)) for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    try:
        yield load
    finally:
        load.stop()
        for worker in workers:
            worker.join()
