"""How soon a process without the limiter is reported on its pod, on a full node.

From the moment at which NVML names the process to the event's request at the API server.
"""

import multiprocessing
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

ROUNDS, DEADLINE_S = 20, 30.0


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
    took = []
    for container, pid in enumerate(thieves):
        pause.wait(rng.random())  # at any moment between two looks
        write_process(Path(folder), pid, 900, container)
        begin = time.monotonic()
        stand_in.appear(container % CARDS, pid)
        took.append(api.heard.get(timeout=DEADLINE_S) - begin)
    told.send(took)
    signal.pause()


def worst_s(folder: str, pids: list[int], thieves: list[int]) -> float:
    """The longest of all rounds."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=steal, args=(folder, pids, thieves, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        took = ours.recv()
    except EOFError:
        raise SystemExit("the monitor ended before a process was reported") from None
    finally:
        process.kill()
        process.join()
    p50 = statistics.median(took)
    print(f"audit: who has no limiter is reported after p50 {p50:.2f} s, worst {max(took):.2f} s")
    return float(max(took))
