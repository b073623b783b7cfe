"""What all nodes say to a pod, read from the present view; nothing is changed."""

from collections import Counter
from dataclasses import dataclass, field, replace

from hami_extender.answers import CardAnswer, NodeAnswer, answer_of
from hami_extender.notices import nearest
from hami_extender.placement import Placement, Refusal
from hami_extender.question import Question
from hami_extender.quota import Standing
from hami_extender.selection import Policies
from hami_extender.snapshot import Snapshot
from hami_extender.usage import NodeState
from hamikit.codec import Slots
from hamikit.objects import Pod


@dataclass(frozen=True, slots=True)
class DeviceAnswer:
    """A part of a card that a pod has or would get."""

    container: str
    uuid: str
    memory_mib: int
    cores: int


@dataclass(frozen=True, slots=True)
class PodAnswer:
    """All that is to say about a pod.

    `state` is one of `waiting`, `placing`, `placed`, `finished`, `not ours`, `invalid`; for a
    simulated pod `fits` or `does not fit`. `reasons` counts nodes by what kube-scheduler is told.
    """

    pod: str
    state: str
    text: str
    uid: str = ""
    node: str = ""
    devices: tuple[DeviceAnswer, ...] = ()
    fitting: int = 0
    refused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    nodes: tuple[NodeAnswer, ...] = ()
    quota: tuple[Standing, ...] = ()
    last_attempt_s: float | None = None


def devices_of(pod: Pod, slots: Slots) -> tuple[DeviceAnswer, ...]:
    """A grant by the names of the pod's containers."""
    containers = [container.name for container in pod.all_containers]
    return tuple(
        DeviceAnswer(containers[number], device.uuid, device.memory_mib, device.cores)
        for number, slot in enumerate(slots)
        for device in slot
    )


def reasons_of(refusals: dict[str, Refusal]) -> dict[str, int]:
    """How many nodes give each reason, the most frequent first."""
    return dict(Counter(refusal.reason for refusal in refusals.values()).most_common())


class Survey:
    """Asks every known node. The snapshot's lock is held."""

    def __init__(self, snapshot: Snapshot, policies: Policies) -> None:
        self._snapshot, self._policies = snapshot, policies

    def question(self, pod: Pod) -> Question | None:
        """What the pod asks every node within its quota; None if it asks for no device of ours.

        Raises:
            RequestError: the pod asks for what cannot be.
        """
        question = self._snapshot.question(pod, self._policies.gpu)
        return self._snapshot.limited(question, pod) if question else None

    def quota(self, pod: Pod) -> tuple[Standing, ...]:
        """The limits of the pod's namespace."""
        return tuple(
            standing
            for standing in self._snapshot.budget.standings(self._snapshot.families)
            if standing.namespace == pod.metadata.namespace and standing.limit is not None
        )

    def policy(self, question: Question) -> str:
        """Which nodes the pod prefers."""
        return question.node_policy or self._policies.node

    def split(self, question: Question) -> tuple[list[str], dict[str, Refusal]]:
        """The nodes that fit, best first, and why the others do not."""
        snapshot = self._snapshot
        known = [name for name, state in snapshot.ledger.nodes.items() if state.facts is not None]
        table = snapshot.verdicts.table(question)
        return table.best(set(known), self.policy(question), len(known)), table.refusals(known)

    def slots(self, question: Question, node: str) -> Slots:
        """What the pod would get on a node that fits."""
        verdict = self._snapshot.verdicts.table(question).verdict(node)
        return verdict.slots if isinstance(verdict, Placement) else ()

    def told(
        self, pod: Pod, question: Question, refusals: dict[str, Refusal], limit: int
    ) -> tuple[NodeAnswer, ...]:
        """The nearest nodes in full, with the pods that hold their cards."""
        if not limit:
            return ()
        nodes = self._snapshot.ledger.nodes
        containers = [container.name for container in pod.all_containers]
        return tuple(
            self._with_holders(
                nodes[name], answer_of(nodes[name], name, question, refusals[name], containers)
            )
            for name in nearest(nodes, refusals)[:limit]
        )

    def _with_holders(self, state: NodeState, answer: NodeAnswer) -> NodeAnswer:
        held: dict[str, list[str]] = {}
        for uid in state.holders:
            holding = self._snapshot.ledger.holdings[uid]
            for uuid in holding.taken:
                held.setdefault(uuid, []).append(holding.pod)

        def named(card: CardAnswer) -> CardAnswer:
            return replace(card, held_by=tuple(sorted(held.get(card.uuid, ()))))

        return replace(answer, cards=tuple(map(named, answer.cards)))
