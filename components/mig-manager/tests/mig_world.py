"""A node in memory: its cards as NVML behaves, its pods and its object as the API server does."""

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path

import pynvml

from hami_mig_manager.apply import Manager, Sight
from hami_mig_manager.journal import decode_journal, encode_journal
from hami_mig_manager.plan import Rules
from hami_mig_manager.state import Card, Claim, Compute, Instance, Spot
from hami_mig_manager.verdict import NvmlFailed
from hamikit.cluster import ApiError
from hamikit.codec import CodecError
from hamikit.instances import MigProfile, Placement
from hamikit.mig import MigAllocation, decode_blocked, encode_blocked

GPU = "GPU-a"
FAKE = Path(__file__).parents[3] / "e2e/fakegpu"
"""Sources of the simulated driver."""


class Crash(BaseException):
    """The process is killed here."""


def profile(name, memory_mib, slices, *starts, size):
    """A profile that can be made at these starts."""
    return MigProfile(name, memory_mib, 0, slices, tuple(Placement(s, size) for s in starts))


A100 = (
    profile("1g.5gb", 4864, 1, *range(7), size=1),
    profile("1g.10gb", 9984, 1, 0, 2, 4, 6, size=2),
    profile("2g.10gb", 9984, 2, 0, 2, 4, size=2),
    profile("3g.20gb", 20096, 3, 0, 4, size=4),
    profile("4g.20gb", 20096, 4, 0, size=4),
    profile("7g.40gb", 40448, 7, 0, size=8),
)
"""Of an A100 of 40 GB; source: NVIDIA Multi-Instance GPU User Guide."""


def spot(name, start, card=GPU, profiles=A100):
    """Where an instance of a profile is."""
    size = next(p.placements[0].size for p in profiles if p.name == name)
    return Spot(card, name, start, size)


class Heard:
    """Remembers what it is told."""

    def __init__(self):
        self.log, self.waiting = [], ()

    def made(self, spot, seconds):
        self.log.append(("made", spot))

    def destroyed(self, spot):
        self.log.append(("destroyed", spot))

    def failed(self, what, reason):
        self.log.append((what, reason))

    def looked(self, view, waits):
        self.waiting = waits


@dataclass
class World:
    """Both edges of the manager; every call of either may be where it is killed.

    `faults` are codes that the next calls of NVML by this name fail with, `refused` pods that the
    API server will hear nothing of. What the manager must
    never do raises AssertionError here.
    """

    cards: dict[str, Card] = field(default_factory=lambda: {GPU: Card(GPU, profiles=A100)})
    claims: dict[str, Claim] = field(default_factory=dict)
    annotations: dict[str, str | None] = field(default_factory=dict)
    lingering: set[str] = field(default_factory=set)
    using: set[str] = field(default_factory=set)
    foreign: set[Spot] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    faults: dict[str, list[int]] = field(default_factory=dict)
    now: float = 1000.0
    version: int = 1
    evictions: list[tuple[str, str]] = field(default_factory=list)
    budget: bool = True
    calls: int = 0
    dies_at: int | None = None

    def __post_init__(self):
        self._ids = itertools.count(1)
        self.heard = Heard()

    # The manager's edges.

    def step(self, what):
        """One call: the process may be killed before it, or the driver refuse it."""
        self.calls += 1
        if self.calls == self.dies_at:
            raise Crash
        if self.faults.get(what):
            raise NvmlFailed(self.faults[what].pop(0), f"{what} fails")

    def read(self):
        self.step("read")
        return {
            uuid: replace(
                card, instances=tuple(replace(i, busy=i.uuid in self.using) for i in card.instances)
            )
            for uuid, card in self.cards.items()
        }

    def create(self, spot):
        self.step("create")
        self._make(spot)
        try:
            self.step("compute")
        except NvmlFailed as error:
            if self.faults.get("undo"):
                self.faults["undo"].pop()
                raise NvmlFailed(error.code, "half made", half_made=True) from error
            self._remove(spot)
            raise
        self._compute(spot)

    def complete(self, instance):
        self.step("compute")
        self._compute(instance.spot)

    def destroy(self, instance):
        found = next(i for i in self.cards[instance.spot.card].instances if i.id == instance.id)
        self.allowed(found)
        self.step("destroy")
        if found.uuid in self.using:
            raise NvmlFailed(pynvml.NVML_ERROR_IN_USE, "in use")
        self._replace(replace(found, computes=()))
        self.step("destroy-gi")
        self._remove(found.spot)

    def look(self):
        self.step("look")
        journal, spoilt = (), False
        try:
            journal = decode_journal(self.annotations.get("journal") or "")
        except CodecError:
            spoilt = True
        return Sight(
            tuple(self.claims.values()),
            journal,
            decode_blocked(self.annotations.get("blocked") or ""),
            frozenset(self.lingering),
            str(self.version),
            spoilt,
        )

    def write(self, before, journal, blocked):
        self.step("write")
        if before.version != str(self.version):
            raise ApiError(409, "Conflict", "the node has changed")
        self.annotations |= {"journal": encode_journal(journal), "blocked": encode_blocked(blocked)}
        self.version += 1
        self.step("written")

    def record(self, claim, allocations):
        self.step("record")
        if claim.uid in self.refused:
            raise ApiError(403, "Forbidden", "a policy of somebody else")
        present = self.claims.get(claim.uid)
        if present is None or present.version != claim.version:
            raise ApiError(409, "Conflict", "the pod has changed")
        self.claims[claim.uid] = replace(
            present, allocations=allocations, version=present.version + "'"
        )
        self.step("recorded")

    def evict(self, claim, reason, text):
        self.step("evict")
        if claim.uid in self.refused:
            raise ApiError(403, "Forbidden", "a policy of somebody else")
        self.evictions.append((claim.uid, reason))
        if self.budget:
            self.end(claim.uid)

    # What happens to a node.

    def manager(self, **rules):
        """A manager with an empty memory."""
        return Manager(self, self, self.heard, lambda: self.now, Rules(**rules))

    def bind(self, uid, *spots, bound_at=None):
        """A pod comes to the node with these reserved."""
        allocations = tuple(
            MigAllocation(number, 0, s.card, s.profile, s.placement)
            for number, s in enumerate(spots)
        )
        when = self.now if bound_at is None else bound_at
        self.claims[uid] = Claim(uid, f"ns/{uid}", "v", allocations, bound_at=when)

    def end(self, uid):
        """A pod is being deleted."""
        if uid in self.claims:
            self.claims[uid] = replace(self.claims[uid], ending=True)

    def gone(self, uid):
        """A pod is not there any more."""
        self.claims.pop(uid, None)

    def by_hand(self, spot):
        """Somebody makes an instance with nvidia-smi."""
        self._make(spot)
        self._compute(spot)
        self.foreign.add(spot)

    def uuids(self, uid):
        """What is recorded on a pod."""
        return [a.mig_uuid for a in self.claims[uid].allocations or ()]

    def there(self):
        """Every instance by its place."""
        return {i.spot: i for card in self.cards.values() for i in card.instances}

    def allowed(self, instance):
        """Fail when this instance must not be destroyed."""
        where = instance.spot
        assert where not in self.foreign, f"{where} was made by hand"
        journal = {e.spot: e for e in decode_journal(self.annotations.get("journal") or "")}
        assert where in journal, f"{where} is not in the journal"
        assert journal[where].pod_uid not in self.lingering, f"{where} is mapped by a container"
        for claim in self.claims.values():
            held = [a.mig_uuid for a in claim.allocations or ()]
            assert instance.uuid is None or instance.uuid not in held, f"{where} is {claim.uid}'s"

    def _make(self, spot):
        card = self.cards[spot.card]
        if not card.enabled:
            raise NvmlFailed(pynvml.NVML_ERROR_NOT_SUPPORTED, "MIG is off")
        legal = next((p.placements for p in card.profiles if p.name == spot.profile), ())
        if spot.placement not in legal:
            raise NvmlFailed(pynvml.NVML_ERROR_INVALID_ARGUMENT, "no such placement")
        if any(i.spot.overlaps(spot) for i in card.instances):
            raise NvmlFailed(pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES, "placement taken")
        self._replace(Instance(spot, next(self._ids)))

    def _compute(self, spot):
        instance = self.there()[spot]
        uuid = f"MIG-{instance.id}"
        self._replace(replace(instance, computes=(Compute(0, uuid),)))

    def _replace(self, instance):
        card = self.cards[instance.spot.card]
        others = [i for i in card.instances if i.spot != instance.spot]
        self.cards[card.uuid] = replace(card, instances=(*others, instance))

    def _remove(self, spot):
        card = self.cards[spot.card]
        kept = tuple(i for i in card.instances if i.spot != spot)
        self.cards[card.uuid] = replace(card, instances=kept)
