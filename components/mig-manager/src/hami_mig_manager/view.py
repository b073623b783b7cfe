"""All that a plan is made from, and whose each instance on the cards is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hami_mig_manager.journal import Entry
from hami_mig_manager.state import Card, Claim, Instance, Memory, Spot
from hamikit.mig import BlockedPlacement, MigAllocation


@dataclass(frozen=True, slots=True)
class View:
    """A node at one moment.

    `lingering` are UIDs of pods whose containers are still on the node, whatever the API server
    says of them. `now` is in Unix seconds.
    """

    cards: Mapping[str, Card]
    claims: tuple[Claim, ...]
    journal: tuple[Entry, ...] = ()
    blocked: tuple[BlockedPlacement, ...] = ()
    lingering: frozenset[str] = frozenset()
    memory: Memory = field(default_factory=Memory)
    now: float = 0.0

    def spot(self, allocation: MigAllocation) -> Spot:
        """Where an allocation is, with the profile's name as the card spells it."""
        card = self.cards.get(allocation.gpu_uuid)
        profile = card.profile(allocation.profile) if card is not None else None
        name = profile.name if profile is not None else allocation.profile
        place = allocation.placement
        return Spot(allocation.gpu_uuid, name, place.start, place.size)

    def instances(self) -> dict[Spot, Instance]:
        """Every instance on cards that can be read, by place."""
        return {
            instance.spot: instance
            for card in self.cards.values()
            if card.fault is None
            for instance in card.instances
        }


@dataclass(frozen=True, slots=True)
class Want:
    """One instance that a pod holds or is to get; `recorded` is the UUID that stands on the pod."""

    claim: Claim
    spot: Spot
    recorded: str | None


def wants(view: View) -> list[Want]:
    """What pods hold and want, each place of a pod once; who has something comes first."""
    owner = {entry.spot: entry.pod_uid for entry in view.journal}

    def turn(want: Want) -> tuple[bool, bool, float, str]:
        claim = want.claim
        mine = owner.get(want.spot) == claim.uid
        return want.recorded is None, not mine, claim.bound_at, claim.uid

    found: dict[tuple[str, Spot], Want] = {}
    for claim in view.claims:
        for allocation in claim.allocations or ():
            spot = view.spot(allocation)
            known = found.get((claim.uid, spot))
            if known is None or known.recorded is None:
                found[claim.uid, spot] = Want(claim, spot, allocation.mig_uuid)
    return sorted(found.values(), key=turn)


def ours(view: View) -> dict[Spot, tuple[Entry, Instance]]:
    """Instances that we made: those in the journal, and those that a pod's record names.

    Records on pods are written by HAMi's accounts alone, so a journal that was lost comes back.
    """
    instances = view.instances()
    found = {
        entry.spot: (entry, instances[entry.spot])
        for entry in view.journal
        if entry.spot in instances and _made_for(entry, instances[entry.spot], view.memory)
    }
    for want in wants(view):
        instance = instances.get(want.spot)
        if instance is None or want.recorded is None or want.spot in found:
            continue
        if instance.uuid == want.recorded:
            found[want.spot] = (intent(want.spot, want.claim.uid, view.now), instance)
    return found


def place(blocked: BlockedPlacement) -> Spot:
    """Where nothing can be made."""
    at = blocked.placement
    return Spot(blocked.gpu_uuid, blocked.profile, at.start, at.size)


def intent(spot: Spot, pod: str, now: float) -> Entry:
    """The entry of an instance that is yet to be made."""
    return Entry(spot.card, spot.profile, spot.placement, pod, int(now))


def _made_for(entry: Entry, instance: Instance, memory: Memory) -> bool:
    if entry.mig_uuid is not None and instance.uuid is not None:
        return instance.uuid == entry.mig_uuid
    if entry.gpu_instance_id is not None:
        return instance.id == entry.gpu_instance_id
    # An intent. Nobody has been told of an instance that we made for it, so nobody uses ours; and
    # where our attempt left nothing behind, somebody else was quicker.
    trouble = memory.troubles.get((entry.pod_uid, entry.spot))
    return not instance.busy and (trouble is None or trouble.half_made)


def readable(view: View) -> bool:
    """Whether it is known what every pod of the node holds."""
    return all(claim.allocations is not None for claim in view.claims)


def unreadable(view: View) -> Iterator[Claim]:
    """Pods of which it is not known."""
    return (claim for claim in view.claims if claim.allocations is None)
