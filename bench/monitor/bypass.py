"""How soon a process without the limiter is reported, and forgotten when it is killed.

On a full node: from the moment at which NVML names the process to the event's request at the API
server, and from its end to the first scrape without it.
"""

import multiprocessing
import os
import queue
import random
import signal
import statistics
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from node import CARDS, StandIn, write_process
from programs import Api, parts_over

from hamikit import logs
from hamikit.exposition import render

ROUNDS, DEADLINE_S, SCRAPE_EVERY_S = 20, 30.0, 0.05
FINDING = b"hami_audit_finding_processes{"


class Telephone(Api):
    """An API server that notes when an event comes."""

    def __init__(self) -> None:
        self.heard: queue.Queue[float] = queue.Queue()

    def create(self, path: str, body: Any) -> bytes:
        """Note it."""
        if body.get("reason") != "GpuWithoutLimiter":
            raise SystemExit(f"unexpected event: {path} {body}")
        self.heard.put(time.monotonic())
        return b"{}"


def steal(folder: str, pids: list[int], thieves: list[int], told: Connection) -> None:
    """The monitor over the stand-ins, on which a process appears now and then."""
    logs.configure("error")
    api, stand_in = Telephone(), StandIn(pids)
    parts = parts_over(folder, stand_in, api)
    parts.host.answered.wait(DEADLINE_S)
    rng, pause = random.Random(1), threading.Event()
    reported, forgotten = [], []
    for container, pid in enumerate(thieves):
        pause.wait(rng.random())  # at any moment between two looks
        write_process(Path(folder), pid, 900, container)
        begin = time.monotonic()
        stand_in.appear(container % CARDS, pid)
        reported.append(api.heard.get(timeout=DEADLINE_S) - begin)
        pause.wait(rng.random())
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        stand_in.vanish(container % CARDS, pid)
        while FINDING in render(parts.registry):
            pause.wait(SCRAPE_EVERY_S)
        forgotten.append(time.monotonic() - begin)
    told.send((reported, forgotten))
    signal.pause()


def worst_s(folder: str, pids: list[int], thieves: list[int]) -> list[float]:
    """The longest of all rounds until a process is reported, and until it is forgotten."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=steal, args=(folder, pids, thieves, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        both = ours.recv()
    except EOFError:
        raise SystemExit("the monitor ended before a process was reported") from None
    finally:
        process.kill()
        process.join()
    for what, took in zip(
        ("who has no limiter is reported", "who is killed is gone"), both, strict=True
    ):
        p50 = statistics.median(took)
        print(f"audit: {what} after p50 {p50:.2f} s, worst of {ROUNDS} {max(took):.2f} s")
    return [max(took) for took in both]
