"""The preempt verb: keep of kube-scheduler's victims those that make the devices fit, or add some.

kube-scheduler proposes, for each node, the pods that would have to go for its own rules; it knows
nothing of cards. A node where no victim would help is dropped from the map: an empty list of
victims would fail the whole call.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from hami_extender.placement import Placement, place
from hami_extender.question import Question
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Holding, Kind, NodeState
from hami_extender.wire import PreemptArgs, Victims
from hamikit.footprint import NOTHING
from hamikit.informer import Change
from hamikit.objects import Pod
from hamikit.shape import RequestError

NOMINATED_S = 60.0
"""How long room is kept for a pod whose victims are ending; renewed when it is asked about."""
PODS_KEPT = 256


class Preemptor:
    """The preempt verb, and the room that is kept for whoever preempted."""

    def __init__(self, snapshot: Snapshot, gpu_policy: str, *, missing: Callable[[], str]) -> None:
        self._snapshot, self._gpu_policy, self.missing = snapshot, gpu_policy, missing
        self._victims: OrderedDict[str, dict[str, tuple[str, ...]]] = OrderedDict()

    def preempt(self, args: PreemptArgs) -> dict[str, Victims]:
        """The nodes where the pod would fit, each with exactly those who have to go."""
        try:
            question = self._snapshot.question(args.pod, self._gpu_policy)
        except RequestError:
            return {}
        if question is None:
            return args.nodes
        with self._snapshot.lock:
            question = self._snapshot.limited(question, args.pod)
            found = {
                name: replace(proposed, uids=needed)
                for name, proposed in args.nodes.items()
                if (needed := self._needed(args.pod, question, name, proposed.uids))
            }
            self._victims[args.pod.metadata.uid] = {n: v.uids for n, v in found.items()}
            if len(self._victims) > PODS_KEPT:
                self._victims.popitem(last=False)
        return found

    def _needed(
        self, pod: Pod, question: Question, node: str, proposed: tuple[str, ...]
    ) -> tuple[str, ...]:
        """All victims on a node; none where the pod would not fit even so. The lock is held."""
        state = self._snapshot.ledger.nodes.get(node)
        if state is None:
            return ()
        going = {*proposed, *self._ending(state), pod.metadata.uid}
        lower = [uid for uid in self._lower(state, pod) if uid not in going]
        if not self._fits(state, question, {*going, *lower}):
            return ()
        added = set(lower)
        # The more important ones are spared first, as kube-scheduler does.
        for uid in lower:
            if self._fits(state, question, {*going, *added} - {uid}):
                added.discard(uid)
        return (*proposed, *(uid for uid in lower if uid in added))

    def _ending(self, state: NodeState) -> list[str]:
        """Pods that hold devices and are being deleted: their room comes without a victim."""
        pods = self._snapshot.pods
        return [
            uid for uid in state.holders if uid in pods and pods[uid].metadata.deletion_timestamp
        ]

    def _lower(self, state: NodeState, pod: Pod) -> list[str]:
        """Bound pods with less priority, the most important first."""
        pods, holdings = self._snapshot.pods, self._snapshot.ledger.holdings
        bound = [
            pods[uid] for uid in state.holders if uid in pods and holdings[uid].kind is Kind.GRANT
        ]
        lower = [other for other in bound if _priority(other) < _priority(pod)]
        lower.sort(key=lambda p: (-_priority(p), p.status.start_time or "~", p.metadata.uid))
        return [other.metadata.uid for other in lower]

    def _fits(self, state: NodeState, question: Question, gone: Iterable[str]) -> bool:
        return isinstance(place(self._without(state, gone), question), Placement)

    def _without(self, state: NodeState, gone: Iterable[str]) -> NodeState:
        holdings = self._snapshot.ledger.holdings
        return without(state, {uid: holdings[uid] for uid in gone if uid in state.holders})

    # Room for whoever preempted, between the end of its victims and its own bind.

    def on_pod(self, change: Change[Pod]) -> None:
        """A pod that was nominated to a node keeps the room there."""
        pod = change.after
        if pod is not None and pod.status.nominated_node_name and not pod.spec.node_name:
            with self._snapshot.lock:
                self._keep_room(pod)

    def refused(self, pod: Pod, _question: object, _refusals: object) -> None:
        """It came before its victims had ended. The lock is held."""
        if pod.status.nominated_node_name:
            self._keep_room(pod)

    def _keep_room(self, pod: Pod) -> None:
        node, uid = pod.status.nominated_node_name, pod.metadata.uid
        state = self._snapshot.ledger.nodes.get(node)
        victims = self._victims.get(uid, {}).get(node)
        if state is None or victims is None or uid in self._snapshot.ledger.holdings:
            return
        try:
            question = self._snapshot.question(pod, self._gpu_policy)
        except RequestError:
            return
        if question is None:
            return
        question = self._snapshot.limited(question, pod)
        verdict = place(self._without(state, {*victims, *self._ending(state)}), question)
        if isinstance(verdict, Placement):
            self._snapshot.claim(pod, node, verdict.slots, NOMINATED_S)


def without(state: NodeState, gone: Mapping[str, Holding]) -> NodeState:
    """The node as it would be if these holdings were given back; the node itself stays as it is."""
    used, ids, unreadable = dict(state.used), dict(state.ids), state.unreadable
    for holding in gone.values():
        for uuid, share in holding.taken.items():
            used[uuid] = used.get(uuid, NOTHING) - share
        for vendor, number in holding.ids.items():
            ids[vendor] = ids.get(vendor, 0) - number
        unreadable -= not holding.readable
    holders = {uid: holding for uid, holding in state.holders.items() if uid not in gone}
    return replace(state, used=used, ids=ids, unreadable=unreadable, holders=holders)


def _priority(pod: Pod) -> int:
    return pod.spec.priority or 0
