"""The two programs that are scraped: the monitor over stand-ins, and an exporter of nothing."""

import json
import resource
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pynvml
from node import NODE, StandIn, pods
from processes import free_port
from prometheus_client import CollectorRegistry

from hami_monitor.__main__ import Parts, settle
from hami_monitor.config import Config
from hamikit import service


class Api:
    """An API server that lists once and has no news."""

    def request(self, *_: Any, **__: Any) -> bytes:
        """The list."""
        return json.dumps(pods()).encode()

    def stream(self, *_: Any) -> Any:
        """A watch on which nothing comes."""
        threading.Event().wait()

    def create(self, path: str, body: Any) -> bytes:
        """No finding is expected, so no event is."""
        raise SystemExit(f"unexpected event: {path} {body}")


def monitor(folder: str, pids: list[int], ready: Connection) -> None:
    """The monitor as it is shipped, over the stand-ins."""
    serve(parts_over(folder, StandIn(pids), Api()).registry, ready)


def parts_over(folder: str, stand_in: StandIn, api: Api) -> Parts:
    """The monitor's parts at work, in this process."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    pynvml._nvmlGetFunctionPointer = pynvml.nvmlLib = stand_in  # noqa: SLF001
    pynvml.nvmlInit = pynvml.nvmlShutdown = lambda: None
    config = Config(NODE, hook_path=Path(folder), driver_root=Path(folder) / "none")
    parts = Parts.of(config, api, proc=f"{folder}/proc")  # type: ignore[arg-type]
    stopping = threading.Event()
    parts.pods.start()
    parts.pods.synced.wait(60)
    parts.host.start(stopping)
    parts.governor.start(stopping)
    settle()
    return parts


def nothing(_folder: str, _pids: list[int], ready: Connection) -> None:
    """The listener with an empty registry."""
    serve(CollectorRegistry(), ready)


def serve(registry: CollectorRegistry, ready: Connection) -> None:
    """Serve until killed."""
    port = free_port()
    service.serve(service.status_app(service.Lifecycle(), registry), "127.0.0.1", port)
    ready.send(port)
    signal.pause()
