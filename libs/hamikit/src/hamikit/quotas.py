"""The limits that namespaces' ResourceQuotas put on devices, in HAMi's form `limits.<resource>`."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from hamikit.informer import Change
from hamikit.objects import Metadata
from hamikit.quantity import QuantityError, parse_integer

PREFIX = "limits."


class QuotaSpec(msgspec.Struct, frozen=True, rename="camel"):
    """What a ResourceQuota limits, and which pods it is about (all, without scopes)."""

    hard: dict[str, str | int | float] = msgspec.field(default_factory=dict)
    scopes: list[str] | None = None
    scope_selector: dict[str, Any] | None = None


class ResourceQuota(msgspec.Struct, frozen=True):
    """A ResourceQuota."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: QuotaSpec = msgspec.field(default_factory=QuotaSpec)


@dataclass(frozen=True, slots=True)
class Limits:
    """One quota's limits on resources, by their names without HAMi's prefix."""

    quota: str
    limits: Mapping[str, int]


class Quotas:
    """All quotas of the cluster by namespace, kept by an informer; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, dict[str, Limits]] = {}

    def on_change(self, change: Change[ResourceQuota]) -> None:
        """Take over what the API server told."""
        metadata = change.present.metadata
        limits = limits_of(change.after) if change.after is not None else {}
        with self._lock:
            held = dict(self._held.get(metadata.namespace, {}))
            held.pop(metadata.uid, None)
            if limits:
                held[metadata.uid] = Limits(metadata.name, MappingProxyType(limits))
            self._held[metadata.namespace] = held
            if not held:
                del self._held[metadata.namespace]

    def of(self, namespace: str) -> Sequence[Limits]:
        """The quotas of a namespace; every one of them must hold."""
        with self._lock:
            return tuple(self._held.get(namespace, {}).values())


def limits_of(quota: ResourceQuota) -> dict[str, int]:
    """The whole-number limits in HAMi's form `limits.<resource>`.

    A quota with scopes is about some pods only. Whether this pod is one of them is not known
    here, so it refuses nobody.
    """
    if quota.spec.scopes or quota.spec.scope_selector:
        return {}
    found = {}
    for key, value in quota.spec.hard.items():
        if not key.startswith(PREFIX):
            continue
        try:
            found[key.removeprefix(PREFIX)] = parse_integer(value)
        except QuantityError:
            continue  # HAMi passes over it, and so does the extender
    return found
