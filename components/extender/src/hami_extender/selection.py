"""Which nodes could hold a pod, and how good each is; nothing is written anywhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hami_extender import score
from hami_extender.naming import named_nodes
from hami_extender.placement import Placement, Refusal
from hami_extender.question import Question
from hami_extender.snapshot import Snapshot
from hami_extender.texts import few
from hami_extender.usage import Kind
from hami_extender.verdicts import Table
from hami_extender.wire import FilterArgs, FilterResult
from hamikit import names
from hamikit.objects import Pod
from hamikit.shape import RequestError

OTHERS_HAVE_ROOM = "other nodes have room, retrying"
IN_FLIGHT = "an earlier bind of this pod is not settled yet, retrying"
UNCACHED = "this extender needs node names: set nodeCacheCapable: true in the scheduler's config"
NO_LABEL = "PodNotAdmittedByWebhook"
"""Without our label no informer of ours would see the pod."""
BAD_REQUEST = "InvalidDeviceRequest"

CLAIM_S = 5.0
"""From prioritize to bind it takes milliseconds; permit plugins may take seconds."""
CLAIM_WITH_VOLUMES_S = 60.0
"""Binding volumes comes between prioritize and bind and may take much longer."""
SAMPLE_FLOOR = 100
"""kube-scheduler's minFeasibleNodesToFind: with fewer nodes than this it asked about all."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The defaults where a pod does not say, and how many nodes filter leaves."""

    node: str = score.BINPACK
    gpu: str = score.SPREAD
    shortlist: int = 64


class Refused(Protocol):
    """Who is told that no node fits."""

    def __call__(self, pod: Pod, question: Question, refusals: dict[str, Refusal], /) -> None:
        """Take note; called with the snapshot's lock held."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """The nodes that filter left for a pod, best first, and when: a place in the journal."""

    pod: Pod
    table: Table
    position: int
    nodes: list[str]


def _ignore(_pod: Pod, _question: Question, _refusals: dict[str, Refusal]) -> None:
    """Tell nobody."""


class Selector:
    """The filter and prioritize verbs; `missing` says what is missing until we may place pods."""

    def __init__(
        self,
        snapshot: Snapshot,
        policies: Policies,
        *,
        missing: Callable[[], str],
        refused: Refused = _ignore,
    ) -> None:
        self._snapshot, self._policies = snapshot, policies
        self._missing, self._refused = missing, refused
        self._last: tuple[Pod | None, Question | None] = None, None
        self._answered: _Answered | None = None

    def filter(self, args: FilterArgs) -> FilterResult:
        """The nodes that could hold the pod: the best few, or every node's reason."""
        names_ = args.node_names
        try:
            question = self._question(args.pod)
        except RequestError as error:
            return _refuse_all(names_, f"{BAD_REQUEST}: {error}")
        if question is None:
            return FilterResult(node_names=names_, nodes=args.nodes)
        if names_ is None:
            return FilterResult(error=UNCACHED)
        if missing := self._missing():
            return FilterResult(error=missing)
        if not _labelled(args.pod):
            return _refuse_all(names_, NO_LABEL)
        with self._snapshot.lock:
            return self._filter(args.pod, question, names_)

    def _question(self, pod: Pod) -> Question | None:
        """What the pod asks; raises RequestError. Prioritize asks about the pod of filter."""
        known, question = self._last
        if known is not pod:
            question = self._snapshot.question(pod, self._policies.gpu)
            self._last = pod, question
        return question

    def _filter(self, pod: Pod, question: Question, asked: list[str]) -> FilterResult:
        snapshot = self._snapshot
        if not self._may_choose(pod):
            return FilterResult(error=IN_FLIGHT)
        question = snapshot.limited(question, pod)
        table = snapshot.verdicts.table(question)
        limit = 1 if _has_volumes(pod) else self._policies.shortlist
        # In their order: it is nearly that of their names, which makes sorting them quick.
        names_ = dict.fromkeys(asked)
        best = table.best(names_, self._node_policy(question), limit)
        if best:
            position = snapshot.ledger.journal.position
            self._answered = _Answered(pod, table, position, list(best))
            if limit > 1:
                named = sorted((named_nodes(pod) & names_.keys()).difference(best))
                best += table.fitting(named)
            if len(best) == 1:
                # A single node is never prioritized, so the claim is made here.
                self._claim(pod, best[0], table)
            return FilterResult(node_names=best)
        if len(asked) >= SAMPLE_FLOOR and self._others_have_room(asked, question):
            return FilterResult(error=OTHERS_HAVE_ROOM)
        refusals = table.refusals(asked)
        self._refused(pod, question, refusals)
        said = few({name: refusal.reason for name, refusal in refusals.items()})
        return FilterResult(
            node_names=[],
            failed={n: said[n] for n, r in refusals.items() if not r.unresolvable},
            unresolvable={n: said[n] for n, r in refusals.items() if r.unresolvable},
        )

    def _others_have_room(self, asked: list[str], question: Question) -> bool:
        """Whether a node fits that kube-scheduler left out of its sample."""
        others = self._snapshot.ledger.nodes.keys() - set(asked)
        return self._snapshot.verdicts.fits_any(question, others)

    def prioritize(self, args: FilterArgs) -> dict[str, int]:
        """0..10 for each node, the best alone at 10; the best is claimed for the pod."""
        names_ = args.node_names or []
        try:
            question = self._question(args.pod)
        except RequestError:
            return dict.fromkeys(names_, 0)
        if question is None or self._missing():
            return dict.fromkeys(names_, 0)
        with self._snapshot.lock:
            return self._prioritize(args.pod, question, names_)

    def _prioritize(self, pod: Pod, question: Question, asked: list[str]) -> dict[str, int]:
        if not self._may_choose(pod):
            return dict.fromkeys(asked, 0)
        question = self._snapshot.limited(question, pod)
        table, ranked = self._ranked(pod, question, asked)
        if ranked:
            self._claim(pod, ranked[0], table)
        return {**dict.fromkeys(asked, 0), **score.priorities(ranked)}

    def _ranked(self, pod: Pod, question: Question, asked: list[str]) -> tuple[Table, list[str]]:
        """Those of these nodes that fit, best first: as a rule what filter has just answered."""
        before, journal = self._answered, self._snapshot.ledger.journal
        if (
            before is not None
            and before.pod is pod
            and before.position == journal.position
            and before.table.question == question
            and before.nodes == asked
        ):
            return before.table, before.nodes
        table = self._snapshot.verdicts.table(question)
        names_ = dict.fromkeys(asked)
        return table, table.best(names_, self._node_policy(question), len(names_))

    def _claim(self, pod: Pod, node: str, table: Table) -> None:
        """Count the devices that the pod will probably get."""
        verdict = table.verdict(node)
        if isinstance(verdict, Placement):
            self._snapshot.claim(pod, node, verdict.slots, _claim_seconds(pod), table.question)

    def _may_choose(self, pod: Pod) -> bool:
        """Start the pod's choice afresh, unless it already holds devices for sure."""
        uid = pod.metadata.uid
        self._snapshot.expire_claims()
        self._snapshot.drop_claim(uid)
        held = self._snapshot.ledger.holdings.get(uid)
        return held is None or held.kind is Kind.CLAIM

    def _node_policy(self, question: Question) -> str:
        return question.node_policy or self._policies.node


def _refuse_all(asked: Sequence[str] | None, reason: str) -> FilterResult:
    if asked is None:
        return FilterResult(error=reason)
    return FilterResult(node_names=[], unresolvable=dict.fromkeys(asked, reason))


def _labelled(pod: Pod) -> bool:
    return pod.metadata.labels.get(names.LABEL_DEVICE_POD) == names.LABEL_DEVICE_POD_VALUE


def _has_volumes(pod: Pod) -> bool:
    """Whether binding volumes may come between choice and bind."""
    return any(
        "persistentVolumeClaim" in volume or "ephemeral" in volume
        for volume in pod.spec.volumes or []
    )


def _claim_seconds(pod: Pod) -> float:
    return CLAIM_WITH_VOLUMES_S if _has_volumes(pod) else CLAIM_S
