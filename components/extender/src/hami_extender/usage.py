"""Who holds what: pods' grants summed per node and card, kept exact by small steps."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from itertools import count
from types import MappingProxyType

from hami_extender.inventory import NodeFacts
from hami_extender.journal import Journal
from hamikit.codec import GrantedDevice, Slots
from hamikit.footprint import NOTHING, Footprint, Share, share_of
from hamikit.footprint import footprint as pod_footprint
from hamikit.shape import Role


def _per_card(slot: Iterable[GrantedDevice]) -> dict[str, Share]:
    taken: dict[str, Share] = {}
    for device in slot:
        share = share_of(device.memory_mib, device.cores)
        taken[device.uuid] = taken.get(device.uuid, NOTHING) + share
    return taken


def footprint(roles: Sequence[Role], slots: Slots) -> dict[str, Share]:
    """What a pod with this grant takes of each card at its worst moment."""
    return pod_footprint(zip(roles, map(_per_card, aligned(slots, len(roles))), strict=True))


def aligned(slots: Slots, containers: int) -> Slots:
    """One slot a container: HAMi 2.10 lost leading empty ones and appends trailing ones."""
    if len(slots) >= containers:
        return slots[:containers]
    return ((),) * (containers - len(slots)) + slots


def device_ids(roles: Sequence[Role], counts: Sequence[int]) -> int:
    """How many of kubelet's device ids a pod holds; the same arithmetic, without cards."""
    sidecars = apps = peak = 0
    for role, number in zip(roles, counts, strict=True):
        if role is Role.APP:
            apps += number
        elif role is Role.SIDECAR:
            sidecars += number
        else:
            peak = max(peak, sidecars + number)
    return max(peak, sidecars + apps)


class Kind(Enum):
    """How sure it is that a pod holds its devices."""

    CLAIM = "claim"
    """Probably bound soon; gives way to any bind."""
    FLIGHT = "flight"
    """A Binding is on its way, or written and not yet seen by the watch."""
    GRANT = "grant"
    """The API server shows it."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What one pod holds on one node; `readable` is false for a grant that nobody can decode.

    `ids` counts kubelet's device ids by family, `asked` is the question that it answers, if known.
    """

    kind: Kind
    node: str
    pod: str
    slots: Slots
    taken: Footprint
    ids: Mapping[str, int]
    readable: bool = True
    asked: object = field(default=None, compare=False)


def holding_of(
    kind: Kind, node: str, pod: str, roles: Sequence[Role], slots: Slots, *, asked: object = None
) -> Holding:
    """The holding of a pod (`namespace/name`) with these slots, which answer what it `asked`."""
    full = aligned(slots, len(roles))
    return Holding(
        kind=kind,
        node=node,
        pod=pod,
        slots=full,
        taken=footprint(roles, full),
        ids=_ids(roles, full),
        asked=asked,
    )


def _ids(roles: Sequence[Role], slots: Slots) -> Mapping[str, int]:
    counts = [Counter(device.vendor for device in slot) for slot in slots]
    vendors = sorted({vendor for counter in counts for vendor in counter})
    return _shared(
        tuple((v, device_ids(roles, [counter[v] for counter in counts])) for v in vendors)
    )


@lru_cache(maxsize=1024)
def _shared(ids: tuple[tuple[str, int], ...]) -> Mapping[str, int]:
    """One mapping for all holdings that are alike: nearly all are."""
    return MappingProxyType(dict(ids))


@dataclass(slots=True)
class NodeState:
    """A node's facts, where it is known, with the sums of its holdings.

    `version` changes with every change and is never used twice. `latest` is the pod whose holding
    was the last change, empty where that was something else.
    """

    name: str
    version: int
    latest: str = ""
    facts: NodeFacts | None = None
    used: dict[str, Share] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    holders: dict[str, Holding] = field(default_factory=dict)

    def missing_cards(self) -> list[str]:
        """Cards that pods hold here and the node does not announce (any more)."""
        known = {card.uuid for card in self.facts.cards} if self.facts else set()
        return sorted(self.used.keys() - known)


def _ignore(_holding: Holding, _sign: int) -> None:
    """Nobody else counts."""


class Ledger:
    """All nodes and holdings; every change costs the size of one pod. Not thread-safe.

    `counted` is told each holding that begins (1) or ends (-1), be it as a claim or as more.
    """

    def __init__(self, counted: Callable[[Holding, int], None] = _ignore) -> None:
        self._counted = counted
        self.nodes: dict[str, NodeState] = {}
        self.holdings: dict[str, Holding] = {}
        self.journal = Journal()
        self._versions = count(1)

    def set_facts(self, name: str, facts: NodeFacts | None) -> bool:
        """Take a node's facts, None when it is gone (its pods may outlive it); whether new."""
        state = self._state(name)
        if state.facts == facts and facts is not None:
            return False
        state.facts = facts
        self._changed(state)
        self._forget_if_empty(state)
        return True

    def hold(self, uid: str, holding: Holding) -> None:
        """Let a pod hold this, instead of what it held."""
        before = self.holdings.get(uid)
        if before is not None and before == replace(holding, kind=before.kind):
            # It is only surer now: no answer of the node changes.
            self.holdings[uid] = self._state(holding.node).holders[uid] = holding
            if (before.kind is Kind.CLAIM) is not (holding.kind is Kind.CLAIM):
                self._counted(before, -1)
                self._counted(holding, 1)
            return
        self.release(uid)
        self.holdings[uid] = holding
        state = self._state(holding.node)
        for uuid, share in holding.taken.items():
            state.used[uuid] = state.used.get(uuid, NOTHING) + share
        for vendor, number in holding.ids.items():
            state.ids[vendor] = state.ids.get(vendor, 0) + number
        state.unreadable += not holding.readable
        state.holders[uid] = holding
        self._counted(holding, 1)
        self._changed(state)
        state.latest = uid

    def release(self, uid: str) -> Holding | None:
        """Take back what a pod holds; returns it, None if there was nothing."""
        holding = self.holdings.pop(uid, None)
        if holding is None:
            return None
        state = self._state(holding.node)
        for uuid, share in holding.taken.items():
            left = state.used[uuid] - share
            if left == NOTHING:
                del state.used[uuid]
            else:
                state.used[uuid] = left
        for vendor, number in holding.ids.items():
            state.ids[vendor] -= number
        state.unreadable -= not holding.readable
        state.holders.pop(uid, None)
        self._counted(holding, -1)
        self._changed(state)
        self._forget_if_empty(state)
        return holding

    def claims_on(self, node: str) -> list[str]:
        """UIDs of the pods with no more than a claim on the node."""
        state = self.nodes.get(node)
        holders = sorted(state.holders) if state else []
        return [uid for uid in holders if self.holdings[uid].kind is Kind.CLAIM]

    def _state(self, name: str) -> NodeState:
        state = self.nodes.get(name)
        if state is None:
            state = self.nodes[name] = NodeState(name, next(self._versions))
        return state

    def _changed(self, state: NodeState) -> None:
        state.version, state.latest = next(self._versions), ""
        self.journal.add(state.name)

    def _forget_if_empty(self, state: NodeState) -> None:
        if state.facts is None and not state.holders:
            self.nodes.pop(state.name, None)
