"""What has to be done so that every pod has its instances and nobody else's are touched.

A placement is never chosen here: the scheduler reserved it. A plan is made anew from what there is
after each step, so it does not matter at which of them a predecessor was killed.
"""

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from hami_mig_manager import reasons
from hami_mig_manager.journal import Entry
from hami_mig_manager.state import Claim, Instance, Spot
from hami_mig_manager.steps import Complete, Create, Destroy, Evict, Plan, Record, Step, Wait
from hami_mig_manager.view import View, Want, intent, ours, place, readable, unreadable, wants
from hamikit.mig import BlockedPlacement, MigAllocation

LOOK_S: Final = 2.0
"""How soon to look again where nothing tells of a change: a process ends, a container goes."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How long things last, in seconds.

    An instance that nobody needs stays for `grace_s`. A pod waits `patience_s` after it came to the
    node for others to let go. A placement that failed stays blocked for `block_s`.
    """

    grace_s: float = 30.0
    patience_s: float = 60.0
    block_s: float = 300.0


def plan(view: View, rules: Rules) -> Plan:
    """The next things to do; nothing when everything is as it should be."""
    draft = _Draft(view, rules)
    for want in wants(view):
        draft.serve(want)
    draft.release()
    draft.record()
    return draft.done()


class _Draft:
    """A plan that is being made."""

    def __init__(self, view: View, rules: Rules) -> None:
        self._view, self._rules = view, rules
        self._instances = view.instances()
        found = ours(view)
        self._ours = {spot: instance for spot, (_, instance) in found.items()}
        self._entries = {spot: entry for spot, (entry, _) in found.items()}
        self._held: dict[Spot, Claim] = {}
        self._made: dict[tuple[str, Spot], Instance] = {}
        self._journal: dict[Spot, Entry] = {}
        self._failed: dict[Spot, str] = {}
        self._refused: set[str] = set()
        self._steps: list[Step] = []
        self._waits = [
            Wait(claim, "its record of MIG instances cannot be read, so none of this node is taken")
            for claim in unreadable(view)
        ]
        self._times: list[float] = []

    def serve(self, want: Want) -> None:
        """Let a pod keep what it has, and see to it that it gets what it lacks."""
        if self._silent(want):
            return
        instance = self._ours.get(want.spot)
        if want.claim.ending:
            if instance is not None and self._is_holder(want, instance):
                self._hold(want, instance)
            return
        if (fault := self._impossible(want, instance)) is not None:
            self._refuse(want, *fault)
        elif instance is not None:
            self._take(want, instance)
        else:
            self._make(want)

    def _silent(self, want: Want) -> bool:
        """Whether nothing can be said, because the card does not answer."""
        card = self._view.cards.get(want.spot.card)
        if card is not None and card.fault is None:
            return False
        # The card of a pod that has its instance may come back, and health is not our business.
        if want.recorded is None and not want.claim.ending:
            if card is None:
                self._refuse(want, reasons.CARD_MISSING, "its card is not on this node any more")
            else:
                self._wait(want, reasons.CARD_SILENT, f"its card does not answer: {card.fault}")
        return True

    def _impossible(self, want: Want, instance: Instance | None) -> tuple[str, str] | None:
        spot = want.spot
        fault = self._view.cards[spot.card].refuses(spot)
        if fault is not None or instance is not None:
            return fault
        for blocked in self._view.blocked:
            if (
                place(blocked) == spot
                and blocked.reason in reasons.LASTING
                and self._fresh(blocked)
            ):
                return blocked.reason, f"{spot} could not be made before"
        return None

    def _is_holder(self, want: Want, instance: Instance) -> bool:
        entry = self._entries[want.spot]
        return want.recorded == instance.uuid or entry.pod_uid == want.claim.uid

    def _take(self, want: Want, instance: Instance) -> None:
        spot = want.spot
        if not self._is_holder(want, instance):
            if (other := self._held.get(spot)) is not None:
                self._wait(want, reasons.PLACEMENT_TAKEN, f"pod {other.key} has {spot}")
                return
            if (text := self._used(instance)) is not None:
                self._wait(want, reasons.IN_USE, text)
                return
        self._hold(want, instance)
        if instance.uuid is not None:
            self._made[want.claim.uid, spot] = instance
        elif not self._held_up(want, want.claim.uid):
            self._steps.append(Complete(instance, want.claim.uid))

    def _hold(self, want: Want, instance: Instance) -> None:
        self._held[want.spot] = want.claim
        self._journal[want.spot] = replace(
            self._entries[want.spot],
            pod_uid=want.claim.uid,
            mig_uuid=instance.uuid,
            gpu_instance_id=instance.id,
            unused_since=None,
        )

    def _make(self, want: Want) -> None:
        spot = want.spot
        for other, claim in self._held.items():
            if other.overlaps(spot):
                self._wait(want, reasons.PLACEMENT_TAKEN, f"pod {claim.key} has {other}")
                return
        obstacles = [i for i in self._instances.values() if i.spot.overlaps(spot)]
        for instance in obstacles:
            if instance.spot not in self._ours:
                text = f"{instance.spot} was made by somebody else"
                self._refuse(want, reasons.PLACEMENT_TAKEN, text)
                return
        if obstacles:
            self._clear(want, obstacles)
            return
        self._held[spot] = want.claim
        if self._held_up(want, want.claim.uid):
            return  # nothing of ours is there: what appears meanwhile was made by somebody else
        self._steps.append(Create(spot, want.claim.uid))
        known = next((e for e in self._view.journal if e.spot == spot), None)
        if known is None or known.pod_uid != want.claim.uid or known.gpu_instance_id is not None:
            known = intent(spot, want.claim.uid, self._view.now)
        self._journal[spot] = known

    def _clear(self, want: Want, obstacles: list[Instance]) -> None:
        """Take instances away that stand where one is needed now."""
        for instance in obstacles:
            if (text := self._used(instance)) is not None:
                self._wait(want, reasons.IN_USE, text)
            elif not readable(self._view):
                self._wait(want, reasons.PLACEMENT_TAKEN, f"{instance.spot} may be in use")
            else:
                self._destroy(instance)
                self._look_at(self._view.now + LOOK_S)

    def _used(self, instance: Instance) -> str | None:
        """Why an instance of ours that no pod holds must stay all the same."""
        if instance.busy:
            return f"a process uses {instance.spot}"
        if self._entries[instance.spot].pod_uid in self._view.lingering:
            return f"containers of a pod that is gone still have {instance.spot}"
        return None

    def _held_up(self, want: Want, uid: str) -> bool:
        """Whether an earlier attempt forbids one now."""
        trouble = self._view.memory.troubles.get((uid, want.spot))
        if trouble is None:
            return False
        if trouble.again_at is None:
            self._refuse(want, trouble.reason, trouble.text)
            return True
        if trouble.again_at <= self._view.now:
            return False
        self._look_at(trouble.again_at)
        self._waits.append(Wait(want.claim, trouble.text))
        return True

    def _wait(self, want: Want, reason: str, text: str) -> None:
        """Have a pod wait for others, but not for ever."""
        end = want.claim.bound_at + self._rules.patience_s
        if self._view.now >= end:
            self._refuse(want, reason, text)
        else:
            self._waits.append(Wait(want.claim, text))
            self._look_at(min(end, self._view.now + LOOK_S))

    def _refuse(self, want: Want, reason: str, text: str) -> None:
        if reason in reasons.LASTING:
            self._failed[want.spot] = reason
        if want.claim.uid not in self._refused:
            self._refused.add(want.claim.uid)
            self._steps.append(Evict(want.claim, reason, text))

    def _destroy(self, instance: Instance) -> None:
        trouble = self._view.memory.troubles.get(("", instance.spot))
        if trouble is not None and (trouble.again_at or 0) > self._view.now:
            self._look_at(trouble.again_at or 0)
        elif Destroy(instance) not in self._steps:
            self._steps.append(Destroy(instance))

    def release(self) -> None:
        """Take away what nobody has needed for a while."""
        for known in self._view.journal:
            card = self._view.cards.get(known.gpu_uuid)
            if (card is None or card.fault is not None) and known.spot not in self._journal:
                self._journal[known.spot] = known  # we shall see when it answers again
        for spot, instance in self._ours.items():
            if spot in self._held:
                continue
            entry = replace(
                self._entries[spot], mig_uuid=instance.uuid, gpu_instance_id=instance.id
            )
            if self._used(instance) is not None:
                self._journal[spot] = replace(entry, unused_since=None)
                self._look_at(self._view.now + LOOK_S)
                continue
            # The clock may have been set back since.
            since = min(int(self._view.now), entry.unused_since or int(self._view.now))
            self._journal[spot] = replace(entry, unused_since=since)
            if not readable(self._view):
                continue
            if self._view.now >= since + self._rules.grace_s:
                self._destroy(instance)
            else:
                self._look_at(since + self._rules.grace_s)

    def record(self) -> None:
        """Tell pods all of whose instances are there; a pod's record is written at once or not."""
        for claim in self._view.claims:
            if claim.ending or claim.uid in self._refused or not claim.allocations:
                continue
            told = [self._told(claim, allocation) for allocation in claim.allocations]
            allocations = tuple(one for one in told if one is not None)
            if len(allocations) == len(told) and allocations != claim.allocations:
                self._steps.append(Record(claim, allocations))

    def _told(self, claim: Claim, allocation: MigAllocation) -> MigAllocation | None:
        instance = self._made.get((claim.uid, self._view.spot(allocation)))
        if instance is None or instance.uuid is None:
            return None
        return replace(
            allocation,
            mig_uuid=instance.uuid,
            gpu_instance_id=instance.id,
            compute_instance_id=instance.computes[0].id,
        )

    def _look_at(self, when: float) -> None:
        self._times.append(when)

    def _fresh(self, blocked: BlockedPlacement) -> bool:
        # One from a later time was made before the clock was set back.
        return blocked.since <= self._view.now < blocked.since + self._rules.block_s

    def _blocked(self) -> tuple[BlockedPlacement, ...]:
        """Where the scheduler cannot have anything made."""
        known = {place(blocked): blocked for blocked in self._view.blocked}
        why = {spot: b.reason for spot, b in known.items() if self._lasts(b)} | self._failed
        why |= dict.fromkeys(self._instances.keys() - self._ours.keys(), reasons.MADE_BY_HAND)
        found = []
        for spot, reason in sorted(why.items()):
            before = known.get(spot)
            since = int(self._view.now)
            if before is not None and before.reason == reason and self._lasts(before):
                since = before.since
            found.append(BlockedPlacement(spot.card, spot.profile, spot.placement, reason, since))
            if reason in reasons.LASTING:
                self._look_at(since + self._rules.block_s)
        return tuple(found)

    def _lasts(self, blocked: BlockedPlacement) -> bool:
        if blocked.reason == reasons.MADE_BY_HAND:
            card = self._view.cards.get(blocked.gpu_uuid)
            return place(blocked) in self._instances or card is None or card.fault is not None
        return self._fresh(blocked)

    def done(self) -> Plan:
        """The plan."""
        journal = tuple(self._journal[spot] for spot in sorted(self._journal))
        blocked = self._blocked()
        again = min(self._times, default=None)
        return Plan(journal, blocked, tuple(self._steps), tuple(self._waits), again)
