"""The cluster as the API server shows it, plus what we have in flight: one ledger, one lock."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import heappop, heappush

import structlog

from hami_extender.inventory import facts_of
from hami_extender.kept import kept
from hami_extender.placement import merged
from hami_extender.question import Question, Questions
from hami_extender.quota import Budget
from hami_extender.usage import Holding, Kind, Ledger, aligned, holding_of
from hami_extender.verdicts import Verdicts
from hamikit import names
from hamikit.codec import CodecError, Slots, decode_grant
from hamikit.devices import DeviceFamily
from hamikit.informer import Change
from hamikit.mig import decode_mig_allocations, with_instances
from hamikit.objects import Node, Pod
from hamikit.quotas import ResourceQuota
from hamikit.shape import roles_of

log = structlog.get_logger()


class Snapshot:
    """The current view. Callers of anything but `on_node` and `on_pod` hold `lock`."""

    def __init__(
        self,
        *families: DeviceFamily,
        lock_protocol: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.families, self._lock_protocol = families, lock_protocol
        self._questions = Questions(families)
        self.lock = threading.RLock()
        self.budget = Budget()
        self.ledger = Ledger(self.budget.count)
        self.verdicts = Verdicts(self.ledger)
        self.pods: dict[str, Pod] = {}
        """Device pods by UID; of bound ones only what `kept` leaves."""
        self._now = now
        self._claims: list[tuple[float, str]] = []

    # What the informers say.

    def on_node(self, change: Change[Node]) -> None:
        """Take over a node's facts."""
        name = change.present.metadata.name
        facts = None
        if change.after is not None:
            facts = facts_of(change.after, self.families, lock=self._lock_protocol)
        with self.lock:
            # Most updates of a node are heartbeats.
            if self.ledger.set_facts(name, facts):
                if facts is not None and facts.fault:
                    log.warning("node's cards cannot be read", node=name, error=facts.fault)
                self._report_missing(name)

    def on_pod(self, change: Change[Pod]) -> None:
        """Take over what the API server shows of a device pod.

        A pod holds its devices until it is terminal or gone: kubelet keeps them through its grace
        period. A pod without node changes nothing: an older event must not free what is in flight.
        """
        pod = change.present
        uid = pod.metadata.uid
        with self.lock:
            if change.after is None or pod.terminal:
                self.pods.pop(uid, None)
                self.ledger.release(uid)
                return
            self.pods[uid] = kept(pod)
            if pod.spec.node_name:
                self._granted(uid, pod)

    def on_quota(self, change: Change[ResourceQuota]) -> None:
        """Take over a namespace's quota."""
        with self.lock:
            self.budget.on_quota(change)

    def kept(self, pod: Pod) -> Pod:
        """What the informer may remember of a pod: the very object that is remembered here."""
        return self.pods.get(pod.metadata.uid) or kept(pod)

    def _granted(self, uid: str, pod: Pod) -> None:
        held = self.ledger.holdings.get(uid)
        shown = grant_of(pod, self.families, held)
        if held is not None and held.kind is Kind.GRANT:
            # The first grant counts, as in the plugin: nobody may rewrite it afterwards.
            if shown is None or shown.slots != held.slots:
                log.warning("grant changed after the bind; the first one counts", pod=pod.key)
            elif _made(shown) > _made(held):
                self.ledger.hold(uid, shown)
            return
        if shown is None:
            # Bound by somebody else: it has no cards of ours.
            self.ledger.release(uid)
            return
        if not shown.readable:
            log.error(
                "grant cannot be read: its node takes no pods until the pod is gone",
                pod=pod.key,
                node=shown.node,
            )
        self.ledger.hold(uid, shown)
        self._report_missing(shown.node)

    def _report_missing(self, name: str) -> None:
        state = self.ledger.nodes.get(name)
        if state is not None and state.facts is not None and (missing := state.missing_cards()):
            log.warning("pods hold cards that the node does not announce", node=name, cards=missing)

    # What we do ourselves.

    def question(self, pod: Pod, gpu_policy: str) -> Question | None:
        """What a pod asks every node; None if it asks for no device of ours.

        `gpu_policy` orders the cards where the pod does not say.

        Raises:
            RequestError: the pod asks for what cannot be.
        """
        return self._questions.of(pod, gpu_policy)

    def limited(self, question: Question, pod: Pod, *, sure: bool = False) -> Question:
        """The question within what the pod's namespace has left; `sure` leaves claims aside."""
        return self.budget.limited(question, pod.metadata.namespace, sure=sure)

    def hold(
        self, kind: Kind, pod: Pod, node: str, slots: Slots, asked: Question | None = None
    ) -> None:
        """Count devices for a pod on a node, instead of what it held."""
        holding = holding_of(kind, node, pod.key, roles_of(pod), slots, asked=asked)
        self.ledger.hold(pod.metadata.uid, holding)

    def recount(self, pod: Pod) -> bool:
        """Count what a bound pod really has until the watch shows it; whether it has a grant."""
        shown = grant_of(pod, self.families)
        if shown is None:
            self.ledger.release(pod.metadata.uid)
            return False
        self.ledger.hold(pod.metadata.uid, replace(shown, kind=Kind.FLIGHT))
        return True

    def claim(
        self, pod: Pod, node: str, slots: Slots, seconds: float, asked: Question | None = None
    ) -> None:
        """Claim devices for a pod that will probably be bound soon; never over a surer holding."""
        if pod.metadata.uid in self.ledger.holdings:
            return
        self.hold(Kind.CLAIM, pod, node, slots, asked)
        heappush(self._claims, (self._now() + seconds, pod.metadata.uid))

    def redeem(self, uid: str, node: str, question: Question) -> Slots | None:
        """Make a flight of a pod's claim; None where its devices have to be chosen afresh.

        They are the right ones still if nothing has changed on the node since they were claimed.
        """
        held, state = self.ledger.holdings.get(uid), self.ledger.nodes.get(node)
        if held is None or held.kind is not Kind.CLAIM or held.asked != question:
            return None
        if state is None or state.latest != uid:
            return None
        self.ledger.hold(uid, replace(held, kind=Kind.FLIGHT, asked=None))
        return held.slots

    def drop_claim(self, uid: str) -> None:
        """Forget a pod's claim, if it has no more than that."""
        held = self.ledger.holdings.get(uid)
        if held is not None and held.kind is Kind.CLAIM:
            self.ledger.release(uid)

    def expire_claims(self) -> None:
        """Forget claims that were not redeemed in time.

        A newer claim of the same pod may go with an old one's time: it is only a claim.
        """
        now = self._now()
        while self._claims and self._claims[0][0] <= now:
            self.drop_claim(heappop(self._claims)[1])


def _made(holding: Holding) -> int:
    """How many of its MIG instances exist."""
    devices = (device for slot in holding.slots for device in slot)
    return sum(d.instance is not None and d.instance.realised for d in devices)


def grant_of(
    pod: Pod, families: Sequence[DeviceFamily], held: Holding | None = None
) -> Holding | None:
    """What a bound pod's annotations say it holds; None if it has no grant.

    `held` is what it was thought to hold: as a rule the very same.
    """
    annotations, node = pod.metadata.annotations, pod.spec.node_name
    texts = [
        annotations[f.allocated_annotation]
        for f in families
        if f.allocated_annotation in annotations
    ]
    if not texts:
        return None
    roles = roles_of(pod)
    try:
        parts = [aligned(decode_grant(text), len(roles)) for text in texts]
    except CodecError:
        # Counting it as nothing would promise its cards again (HAMi defect 8.4).
        return Holding(Kind.GRANT, node, pod.key, (), {}, {}, readable=False)
    try:
        instances = decode_mig_allocations(annotations.get(names.POD_MIG_ALLOCATIONS, ""))
    except CodecError as error:
        # The cards that MIG divides are closed by what is missing there, and no others.
        log.warning("MIG instances of a pod cannot be read", pod=pod.key, error=str(error))
        instances = ()
    slots = with_instances(merged(parts), instances)
    # Instances that have been made are equal to those that are only reserved.
    if held is not None and not instances and (held.node, held.slots) == (node, slots):
        return replace(held, kind=Kind.GRANT, asked=None)
    return holding_of(Kind.GRANT, node, pod.key, roles, slots)
