"""How long after a card's error, and after its repair, the node's object and /explain say so."""

import json
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pods import NODE, ON_NODE, namespaced
from report import Report

from e2e import cards
from e2e.kube import Kube, wait_until
from e2e.pods import container, pod, slice_of
from e2e.product import connect
from hamikit import names
from hamikit.cluster import Api
from hamikit.codec import decode_register
from hamikit.informer import Change, Informer
from hamikit.objects import Node

CARD, XID = 1, "48"
TOO_MUCH_MIB = 900_000
GOAL_S, DEADLINE_S = 2.0, 30.0
ASKS = Path(__file__).with_name("asks.py")
EXPLAIN = ("-n", "hami-system", "deploy/hami-scheduler", "-c", "extender", "--")


class Heard:
    """When somebody first said that the card is fit, or is not (`time.time`)."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._said: list[tuple[bool, float]] = []

    def tell(self, at: float, *, fit: bool) -> None:
        """Somebody says so now."""
        with self._news:
            self._said.append((fit, at))
            self._news.notify_all()

    def anything(self) -> bool:
        """Whether there was a first word."""
        return bool(self._said)

    def after(self, begin: float, *, fit: bool) -> float:
        """Seconds from `begin` until this was said."""

        def found() -> float | None:
            return next((at for said, at in self._said if said is fit and at >= begin), None)

        with self._news:
            at = self._news.wait_for(found, DEADLINE_S)
        if at is None:
            raise SystemExit(f"nobody says after {DEADLINE_S:g} s that the card's fitness is {fit}")
        return at - begin


def measure(report: Report, times: int) -> None:
    """So many errors, each with its repair."""
    kube = connect()
    os.environ.update(kube.environment)
    took: dict[str, list[float]] = {}
    with namespaced(kube) as namespace, annotated() as node, explained(kube, namespace) as asked:
        for number in range(times):
            for verb, what, fit in (("xid", (XID,), False), ("restore", (), True)):
                begin = time.time()
                cards.simulate(NODE, verb, str(CARD), *what)
                for place, heard in (("the register annotation", node), ("/explain", asked)):
                    took.setdefault(f"{verb} to {place}", []).append(heard.after(begin, fit=fit))
            print(f"{number + 1} of {times}", flush=True)
    for name, seconds in took.items():
        worst = statistics.quantiles(seconds, n=100, method="inclusive")[98]
        print(f"{name}: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f}")
        report.add(f"{name}, p99 of {times}", worst, "s", GOAL_S)


@contextmanager
def annotated() -> Iterator[Heard]:
    """What the node's object says, as a watch tells it."""
    heard = Heard()

    def apply(change: Change[Node]) -> None:
        text = change.present.metadata.annotations.get(names.NODE_REGISTER, "[]")
        found = [card.health for card in decode_register(text) if card.index == CARD]
        heard.tell(time.time(), fit=all(found))

    query = {"fieldSelector": f"metadata.name={NODE}"}
    informer = Informer(Api.from_environment(), "/api/v1/nodes", Node, apply, query=query)
    informer.start()
    yield heard
    informer.stop()


@contextmanager
def explained(kube: Kube, namespace: str) -> Iterator[Heard]:
    """What /explain says about a pod that fits nowhere; asked again and again in its container."""
    limits = slice_of(memory=TOO_MUCH_MIB)
    kube.create(pod("waits", namespace, container("c", limits), nodeSelector=ON_NODE))
    asking = [kube.binary, "exec", "-i", *EXPLAIN, "/app/bin/python", "-", f"{namespace}/waits"]
    heard = Heard()
    with subprocess.Popen(
        asking, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(ASKS.read_text())
        program.stdin.close()
        lines = program.stdout

        def follow() -> None:
            for line in lines:
                said = json.loads(line)
                heard.tell(said["at"], fit=said["fit"])

        threading.Thread(target=follow, daemon=True).start()
        wait_until(lambda: None if heard.anything() else "the first answer of /explain", 60)
        yield heard
        program.kill()
