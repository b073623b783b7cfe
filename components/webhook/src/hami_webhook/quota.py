"""What a namespace's quotas say to a pod that alone asks for more than they allow."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from hami_webhook.fill import wish_of
from hami_webhook.rules import Rules
from hamikit.footprint import NOTHING, Share, footprint
from hamikit.informer import Change
from hamikit.objects import Metadata, Pod
from hamikit.quantity import QuantityError, parse_integer
from hamikit.shape import RequestError, parse_container, roles_of

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


def excesses(pod: Pod, rules: Rules, quotas: Sequence[Limits]) -> Iterator[str]:
    """A sentence for each quota that the pod exceeds even in an empty namespace."""
    if not quotas:
        return
    family, need = rules.family, needed(pod, rules)
    asked = (
        (family.memory, need.memory_mib, max(family.memory_factor, 1)),
        (family.cores, need.cores, 1),
    )
    for quota in quotas:
        for name, amount, factor in asked:
            if name in quota.limits and amount > quota.limits[name] * factor:
                yield (
                    f"exceeding resource quota: {quota.quota} allows {PREFIX}{name}: "
                    f"{quota.limits[name]} in the whole namespace, and this pod alone asks for "
                    f"{-(-amount // factor)}; ask for less, or have the quota raised"
                )


def needed(pod: Pod, rules: Rules) -> Share:
    """What a pod's containers take at their worst moment, over all cards together.

    Shares of a card whose size is not known yet (a percentage, a whole card) count as no memory;
    the extender prices them on the node.
    """
    family = rules.family
    shares = []
    for role, container in zip(roles_of(pod), pod.all_containers, strict=True):
        wish = wish_of(container, family)
        try:
            request = parse_container(container.name, {**wish.named, **wish.added}, {}, family)
        except RequestError:
            continue  # it is refused for that already
        if request is not None:
            each = Share(0, request.count * request.memory_mib, request.count * request.cores)
            shares.append((role, {"": each}))
    return footprint(shares).get("", NOTHING)
