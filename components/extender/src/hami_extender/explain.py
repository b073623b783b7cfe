"""Tells a waiting pod, in an event of its own, which cards lack what; once per change of reason."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hami_extender import fit
from hami_extender.inventory import Card, NodeFacts
from hami_extender.placement import Question, Refusal
from hami_extender.snapshot import Snapshot
from hami_extender.usage import NodeState
from hamikit.footprint import NOTHING, Share
from hamikit.objects import Pod
from hamikit.shape import ContainerRequest

REASON = "FilteringFailed"
TOP_NODES = 3
MESSAGE_LIMIT = 1024
"""The API server refuses longer notes."""
PODS_KEPT = 4096
WITHOUT_FIGURES = frozenset(
    {fit.NOT_HEALTHY, fit.CORDONED, fit.TYPE_MISMATCH, fit.UUID_MISMATCH, fit.MIG_INFEASIBLE}
)
"""Reasons that have nothing to do with how much is free."""


class Explainer:
    """Composes events for refused pods and hands each to `send` (namespace, event)."""

    def __init__(
        self,
        snapshot: Snapshot,
        send: Callable[[str, dict[str, Any]], None],
        *,
        component: str,
        utcnow: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._snapshot, self._send = snapshot, send
        self._component, self._utcnow = component, utcnow
        self._told: OrderedDict[str, frozenset[str]] = OrderedDict()

    def refused(self, pod: Pod, question: Question, refusals: dict[str, Refusal]) -> None:
        """No node fits: tell the pod, unless it has been told just this. The lock is held."""
        uid = pod.metadata.uid
        reasons = frozenset(refusal.reason for refusal in refusals.values())
        if self._told.get(uid) == reasons:
            return
        self._told[uid] = reasons
        self._told.move_to_end(uid)
        if len(self._told) > PODS_KEPT:
            self._told.popitem(last=False)
        message = describe(self._snapshot.ledger.nodes, pod, question, refusals)
        self._send(pod.metadata.namespace, self._event(pod, message))

    def _event(self, pod: Pod, message: str) -> dict[str, Any]:
        stamp = self._utcnow().strftime("%Y-%m-%dT%H:%M:%SZ")
        meta = pod.metadata
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta.name[:200]}.", "namespace": meta.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": meta.name,
                "namespace": meta.namespace,
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
            },
            "reason": REASON,
            "type": "Warning",
            "message": message,
            "source": {"component": self._component},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }


def describe(
    nodes: dict[str, NodeState], pod: Pod, question: Question, refusals: dict[str, Refusal]
) -> str:
    """The event's text: how many nodes, and of the nearest three what each card lacks."""
    nearest = sorted(refusals, key=lambda name: _distance(nodes.get(name), refusals[name]))
    parts = [f"no available node, {len(refusals)} nodes do not meet"]
    parts += [
        _node(nodes.get(name), name, pod, (question, refusals[name]))
        for name in nearest[:TOP_NODES]
    ]
    text = "; ".join(parts)
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 3] + "..."


def _distance(state: NodeState | None, refusal: Refusal) -> tuple[bool, int, str]:
    """Nodes that could help one day first, those with the most memory free on a card first."""
    if state is None or state.facts is None:
        return True, 0, ""
    free = [
        card.memory_mib - state.used.get(card.uuid, NOTHING).memory_mib
        for card in state.facts.cards
    ]
    return refusal.unresolvable, -max(free, default=0), state.name


def _node(state: NodeState | None, name: str, pod: Pod, asked: tuple[Question, Refusal]) -> str:
    question, refusal = asked
    facts = state.facts if state else None
    request = (
        question.shape.slots[refusal.container].request if refusal.container is not None else None
    )
    if state is None or facts is None or request is None or refusal.container is None:
        return f"{name}: {refusal.reason}{_detail(facts)}"
    container = pod.all_containers[refusal.container].name
    asks = f"{name}: container {container} asks for {request.count} x {_ask(request)}"
    if not refusal.cards:
        return f"{asks}, the node has {len(facts.cards)}: {refusal.reason}"
    return f"{asks}: " + ", ".join(_cards(facts, state.used, request, refusal))


def _detail(facts: NodeFacts | None) -> str:
    if facts is None:
        return ""
    said = facts.fault or facts.binding_reason or facts.paused
    return f" ({said})" if said else ""


def _ask(request: ContainerRequest) -> str:
    memory = (
        f"{request.memory_mib} MiB" if request.memory_mib else f"{request.memory_percent}% memory"
    )
    return f"({memory}, {request.cores}% cores)"


def _cards(
    facts: NodeFacts, used: dict[str, Share], request: ContainerRequest, refusal: Refusal
) -> list[str]:
    """What each card lacks; those that no figure would change, and those that fit, by number."""
    short = [
        _card(facts.cards[position], used, request, reason)
        for position, reason in refusal.cards
        if reason not in WITHOUT_FIGURES
    ]
    plain = Counter(reason for _, reason in refusal.cards if reason in WITHOUT_FIGURES)
    others = [f"{number} x {reason}" for reason, number in sorted(plain.items())]
    if fitting := len(facts.cards) - len(refusal.cards):
        others.append(f"{fitting} would fit")
    return short + others


def _card(card: Card, used: dict[str, Share], request: ContainerRequest, reason: str) -> str:
    share = used.get(card.uuid, NOTHING)
    asked = "" if request.memory_mib else f", asked {request.memory_on(card.memory_mib)}"
    return (
        f"{card.uuid} {reason} (free {card.memory_mib - share.memory_mib} of {card.memory_mib} MiB"
        f"{asked}, {card.cores - share.cores}% cores, {card.slots - share.slots} slots)"
    )
