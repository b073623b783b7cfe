"""Metrics of the extender's own standing: binds under way, waits for locks, age of its view."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily

from hami_extender.flights import Flights, Outcome
from hami_extender.snapshot import Snapshot


class Contact(Protocol):
    """Something that hears from the API server."""

    @property
    def last_contact(self) -> float:
        """When it last did, by time.monotonic."""


class Waits(Protocol):
    """Something that binds wait for."""

    @property
    def waiting(self) -> int:
        """How many wait now."""


class OwnCollector:
    """Reads the extender's parts at each scrape."""

    def __init__(
        self,
        snapshot: Snapshot,
        flights: Flights,
        locks: Waits,
        contacts: Mapping[str, Contact],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshot, self._flights, self._locks = snapshot, flights, locks
        self._contacts, self._now = contacts, now

    def describe(self) -> list[GaugeMetricFamily]:
        """The families without samples, so that registering does not need the parts."""
        return list(_families())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All series of this moment."""
        binds, locks, pods, ages = _families()
        with self._snapshot.lock:
            outcomes = list(self._flights.under_way().values())
            holdings = self._snapshot.ledger.holdings
            waiting = sum(
                not pod.spec.node_name and uid not in holdings
                for uid, pod in self._snapshot.pods.items()
            )
        for outcome in Outcome:
            binds.add_metric((outcome.value,), outcomes.count(outcome.value))
        locks.add_metric((), self._locks.waiting)
        pods.add_metric((), waiting)
        for name, contact in self._contacts.items():
            ages.add_metric((name,), max(self._now() - contact.last_contact, 0.0))
        yield from (binds, locks, pods, ages)


def _families() -> tuple[GaugeMetricFamily, ...]:
    rows = (
        ("hami_extender_binds", "Binds under way, by what is known of their write.", ("state",)),
        ("hami_extender_lock_waiters", "Binds that wait for a node's lock.", ()),
        ("hami_extender_waiting_pods", "Device pods without a node.", ()),
        (
            "hami_extender_cache_age_seconds",
            "Time since the API server last told anything about these objects.",
            ("objects",),
        ),
    )
    return tuple(GaugeMetricFamily(name, text, labels=labels) for name, text, labels in rows)
