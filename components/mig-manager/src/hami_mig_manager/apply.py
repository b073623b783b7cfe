"""Brings a node's cards to what its pods need: look, change what differs, look again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import structlog

from hami_mig_manager import verdict
from hami_mig_manager.journal import Entry
from hami_mig_manager.plan import Rules, plan
from hami_mig_manager.state import Attempt, Card, Claim, Instance, Memory, Spot, Trouble
from hami_mig_manager.steps import Complete, Create, Destroy, Evict, Plan, Record, Step, Wait
from hami_mig_manager.verdict import NvmlFailed
from hami_mig_manager.view import View
from hamikit.cluster import ApiError
from hamikit.mig import BlockedPlacement, MigAllocation

log = structlog.get_logger()

ROUNDS: Final = 40
"""More than any node needs; a plan that never comes to rest must not spin."""
AGAIN_S: Final = 10.0
"""Before a pod is evicted once more, or told once more what the API server has refused."""
_CONFLICT: Final = 409


class Cards(Protocol):
    """The node's cards through NVML; changes raise NvmlFailed."""

    def read(self) -> Mapping[str, Card]:
        """All cards that can be divided."""

    def create(self, spot: Spot) -> None:
        """Make a GPU instance and its compute instance."""

    def complete(self, instance: Instance) -> None:
        """Make the compute instance."""

    def destroy(self, instance: Instance) -> None:
        """Destroy compute instances, then the GPU instance."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What the API server and the node itself say; `version` is the node object's.

    `spoilt`: journal or blocked placements stand there in a form that nobody can read.
    """

    claims: tuple[Claim, ...]
    journal: tuple[Entry, ...]
    blocked: tuple[BlockedPlacement, ...]
    lingering: frozenset[str]
    version: str
    spoilt: bool = False


class Cluster(Protocol):
    """The API server; every method raises ApiError or Unreachable."""

    def look(self) -> Sight:
        """The present state."""

    def write(
        self, before: Sight, journal: tuple[Entry, ...], blocked: tuple[BlockedPlacement, ...]
    ) -> None:
        """Put both on the node, unless it has changed since `before`."""

    def record(self, claim: Claim, allocations: tuple[MigAllocation, ...]) -> None:
        """Write the ids on the pod, unless it has changed."""

    def evict(self, claim: Claim, reason: str, text: str) -> None:
        """Have the pod placed anew, and tell it why."""


class Observer(Protocol):
    """Hears what is done, for metrics and logs."""

    def made(self, spot: Spot, seconds: float) -> None:
        """An instance was made."""

    def destroyed(self, spot: Spot) -> None:
        """An instance was destroyed."""

    def failed(self, what: str, reason: str) -> None:
        """A step failed."""

    def looked(self, view: View, waits: tuple[Wait, ...]) -> None:
        """What there is now, and who has to wait."""


@dataclass
class Manager:
    """The loop; `now` is in Unix seconds, because times outlive the process in the journal."""

    cards: Cards
    cluster: Cluster
    observer: Observer
    now: Callable[[], float]
    rules: Rules = field(default_factory=Rules)
    dry_run: bool = False
    _troubles: dict[Attempt, Trouble] = field(default_factory=dict)
    _again: dict[str, float] = field(default_factory=dict)

    def settle(self) -> float | None:
        """Rounds until nothing is left to do; when to look again, in Unix seconds.

        Raises:
            ApiError, Unreachable, GpuError: nothing can be done at present; try again.
        """
        for _ in range(ROUNDS):
            found, busy = self.round()
            if not busy:
                break
        else:
            log.error("no rest after many rounds", rounds=ROUNDS, steps=list(map(str, found.steps)))
        return found.again_at

    def round(self) -> tuple[Plan, bool]:
        """One look and what follows from it; whether anything was changed."""
        sight = self.cluster.look()
        view = self._view(sight)
        found = plan(view, self.rules)
        self.observer.looked(view, found.waits)
        if self.dry_run:
            log.info("would do", steps=list(map(str, found.steps)))
            return found, False
        noted = (sight.journal, sight.blocked)
        busy = sight.spoilt or (found.journal, found.blocked) != noted
        if busy:
            # Before anything is made: what is not in the journal is not ours.
            self.cluster.write(sight, found.journal, found.blocked)
        for step in found.steps:
            busy |= self._do(step)
        return found, busy

    def _view(self, sight: Sight) -> View:
        uids = {claim.uid for claim in sight.claims} | {""}
        self._troubles = {key: t for key, t in self._troubles.items() if key[0] in uids}
        return View(
            self.cards.read(),
            sight.claims,
            sight.journal,
            sight.blocked,
            sight.lingering,
            Memory(self._troubles),
            self.now(),
        )

    def _do(self, step: Step) -> bool:
        if isinstance(step, Record | Evict):
            return self._tell(step)
        if isinstance(step, Destroy):
            self._destroy(step.instance)
        else:
            self._create(step)
        return True

    def _create(self, step: Create | Complete) -> None:
        spot = step.spot if isinstance(step, Create) else step.instance.spot
        key, begin = (step.pod, spot), self.now()
        try:
            if isinstance(step, Create):
                self.cards.create(spot)
            else:
                self.cards.complete(step.instance)
        except NvmlFailed as error:
            found = verdict.trouble(error, self._troubles.get(key), self.now())
            self._troubles[key] = replace(
                found, half_made=found.half_made or isinstance(step, Complete)
            )
            self.observer.failed("create", found.reason)
            log.warning("instance not made", spot=str(spot), error=error.text, tries=found.tries)
        else:
            self._troubles.pop(key, None)
            self.observer.made(spot, self.now() - begin)
            log.info("instance made", spot=str(spot), pod=step.pod)

    def _destroy(self, instance: Instance) -> None:
        key = ("", instance.spot)
        try:
            self.cards.destroy(instance)
        except NvmlFailed as error:
            found = verdict.kept(error, self._troubles.get(key), self.now())
            self._troubles[key] = found
            self.observer.failed("destroy", found.reason)
            log.warning("instance stays", spot=str(instance.spot), error=error.text)
        else:
            self._troubles.pop(key, None)
            self.observer.destroyed(instance.spot)
            log.info("instance destroyed", spot=str(instance.spot), uuid=instance.uuid)

    def _tell(self, step: Record | Evict) -> bool:
        """Tell the API server of a pod; one that it refuses keeps no other pod waiting."""
        uid, now = step.claim.uid, self.now()
        if now < self._again.get(uid, now):
            return False
        self._again = {u: when for u, when in self._again.items() if now < when}
        try:
            self._evict(step) if isinstance(step, Evict) else self._record(step)
        except ApiError as error:
            if error.status == _CONFLICT:
                raise
            self._again[uid] = now + AGAIN_S
            self.observer.failed("pod", "Refused")
            log.warning(
                "API server refuses what is told of a pod", pod=step.claim.key, error=str(error)
            )
            return False
        return True

    def _record(self, step: Record) -> None:
        self.cluster.record(step.claim, step.allocations)
        log.info("instances recorded", pod=step.claim.key, count=len(step.allocations))

    def _evict(self, step: Evict) -> None:
        self._again[step.claim.uid] = self.now() + AGAIN_S
        self.observer.failed("pod", step.reason)
        log.warning("pod cannot have its instance", pod=step.claim.key, reason=step.reason)
        self.cluster.evict(step.claim, step.reason, step.text)
