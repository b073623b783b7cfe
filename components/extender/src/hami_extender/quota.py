"""What namespaces may hold by their ResourceQuotas, and what they hold (HAMi's `limits.<name>`).

Memory is counted in MiB and compute in percent, each on every card that a pod gets.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hami_extender.question import PLENTY, Headroom, Part, Question
from hami_extender.usage import Holding, Kind
from hamikit.devices import DeviceFamily
from hamikit.footprint import NOTHING, Share
from hamikit.informer import Change
from hamikit.quotas import Quotas, ResourceQuota


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of a resource a namespace holds, in the resource's own unit; None is no limit."""

    namespace: str
    resource: str
    used: int
    limit: int | None


class Budget:
    """All namespaces' limits and holdings. Guarded by the snapshot's lock."""

    def __init__(self) -> None:
        self._quotas = Quotas()
        self._held: dict[tuple[str, str], Share] = {}
        self._claimed: dict[tuple[str, str], Share] = {}
        self._versions: Counter[str] = Counter()

    def on_quota(self, change: Change[ResourceQuota]) -> None:
        """Take over what the API server shows of a quota."""
        self._quotas.on_change(change)
        self._versions[change.present.metadata.namespace] += 1

    def count(self, holding: Holding, sign: int) -> None:
        """A pod holds something (1), or no longer does (-1)."""
        namespace = holding.pod.partition("/")[0]
        sums = self._claimed if holding.kind is Kind.CLAIM else self._held
        for vendor, share in _by_vendor(holding).items():
            key = namespace, vendor
            before = sums.get(key, NOTHING)
            after = before + share if sign > 0 else before - share
            sums[key] = after
            if after == NOTHING:
                del sums[key]
        self._versions[namespace] += 1

    def version(self, namespace: str) -> int:
        """Changes with everything that changes what a namespace has left."""
        return self._versions[namespace] if self._quotas.of(namespace) else -1

    def limited(self, question: Question, namespace: str, *, sure: bool = False) -> Question:
        """The question within what the namespace has left; `sure` leaves claims aside."""
        quotas = self._quotas.of(namespace)
        if not quotas and all(part.headroom == PLENTY for part in question.parts):
            return question
        left = (self._headroom(part, namespace, sure=sure) for part in question.parts)
        parts = zip(question.parts, left, strict=True)
        return Question(tuple(replace(part, headroom=headroom) for part, headroom in parts))

    def standings(self, families: tuple[DeviceFamily, ...]) -> Iterator[Standing]:
        """Every namespace that has a limit or holds something."""
        with_limits = {namespace for namespace in self._versions if self._quotas.of(namespace)}
        for namespace in sorted(with_limits | {namespace for namespace, _ in self._held}):
            for family in families:
                held = self._held.get((namespace, family.vendor), NOTHING)
                factor = max(family.memory_factor, 1)
                for resource, used in (
                    (family.memory, -(-held.memory_mib // factor)),
                    (family.cores, held.cores),
                ):
                    limit = self._limit(namespace, resource)
                    if resource and (used or limit is not None):
                        yield Standing(namespace, resource, used, limit)

    def _headroom(self, part: Part, namespace: str, *, sure: bool) -> Headroom:
        family, key = part.family, (namespace, part.vendor)
        used = self._held.get(key, NOTHING)
        if not sure:
            used += self._claimed.get(key, NOTHING)
        memory = self._limit(namespace, family.memory)
        cores = self._limit(namespace, family.cores)
        factor = max(family.memory_factor, 1)
        left = Headroom(
            None if memory is None else max(memory * factor - used.memory_mib, 0),
            None if cores is None else max(cores - used.cores, 0),
        )
        return _plenty(part, left)

    def _limit(self, namespace: str, resource: str) -> int | None:
        """What every quota of the namespace allows."""
        limits = [
            quota.limits[resource]
            for quota in self._quotas.of(namespace)
            if resource in quota.limits
        ]
        return min(limits, default=None)


def _plenty(part: Part, left: Headroom) -> Headroom:
    """No limit where the pod cannot reach it: so equal pods keep asking the same question."""
    requests = [slot.request for slot in part.shape.slots if slot.request]
    priced = all(request.memory_mib for request in requests)
    memory = sum(request.count * request.memory_mib for request in requests)
    cores = sum(request.count * request.cores for request in requests)
    enough = Headroom(
        None
        if left.memory_mib is None or (priced and memory <= left.memory_mib)
        else left.memory_mib,
        None if left.cores is None or cores <= left.cores else left.cores,
    )
    return PLENTY if enough == PLENTY else enough


def _by_vendor(holding: Holding) -> dict[str, Share]:
    """What a pod holds of each family, over all its cards."""
    vendors = {device.uuid: device.vendor for slot in holding.slots for device in slot}
    sums: dict[str, Share] = {}
    for uuid, share in holding.taken.items():
        own = Share(0, share.memory_mib, share.cores)
        sums[vendors[uuid]] = sums.get(vendors[uuid], NOTHING) + own
    return sums
