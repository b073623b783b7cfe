"""Tells a waiting pod, in an event of its own, which cards lack what; once per change of reason."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hami_extender import fit
from hami_extender.answers import CardAnswer, NodeAnswer, answer_of
from hami_extender.placement import Refusal
from hami_extender.question import Question
from hami_extender.snapshot import Snapshot
from hami_extender.usage import NodeState
from hamikit.footprint import NOTHING
from hamikit.objects import Pod

REASON = "FilteringFailed"
TOP_NODES = 3
MESSAGE_LIMIT = 1024
"""The API server refuses longer notes."""
PODS_KEPT = 4096
WITHOUT_FIGURES = fit.STATIC | {fit.MIG_INFEASIBLE}
"""Reasons that have nothing to do with how much is free."""


class Notices:
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
    containers = [container.name for container in pod.all_containers]
    parts = [f"no available node, {len(refusals)} nodes do not meet"]
    parts += [
        _node(answer_of(nodes.get(name), name, question, refusals[name], containers))
        for name in nearest(nodes, refusals)[:TOP_NODES]
    ]
    text = "; ".join(parts)
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 3] + "..."


def nearest(nodes: dict[str, NodeState], refusals: dict[str, Refusal]) -> list[str]:
    """Nodes that could help one day first, those with the most memory free on a card first."""
    return sorted(refusals, key=lambda name: _distance(nodes.get(name), name, refusals[name]))


def _distance(state: NodeState | None, name: str, refusal: Refusal) -> tuple[bool, int, str]:
    if state is None or state.facts is None:
        return True, 0, name
    free = [
        card.memory_mib - state.used.get(card.uuid, NOTHING).memory_mib
        for card in state.facts.cards
    ]
    return refusal.unresolvable, -max(free, default=0), name


def _node(answer: NodeAnswer) -> str:
    if not answer.container:
        return f"{answer.node}: {answer.reason}" + (f" ({answer.detail})" if answer.detail else "")
    asks = f"{answer.node}: container {answer.container} asks for {answer.asked}"
    if not any(card.reason for card in answer.cards):
        return f"{asks}, the node has {len(answer.cards)}: {answer.reason}"
    return f"{asks}: " + ", ".join(_cards(answer))


def _cards(answer: NodeAnswer) -> list[str]:
    """What each card lacks; those that no figure would change, and those that fit, by number."""
    refused = [card for card in answer.cards if card.reason]
    percent = "% memory" in answer.asked
    short = [_card(card, percent) for card in refused if card.reason not in WITHOUT_FIGURES]
    plain = Counter(card.reason for card in refused if card.reason in WITHOUT_FIGURES)
    others = [f"{number} x {reason}" for reason, number in sorted(plain.items())]
    if fitting := len(answer.cards) - len(refused):
        others.append(f"{fitting} would fit")
    return short + others


def _card(card: CardAnswer, percent: bool) -> str:  # noqa: FBT001
    asked = f", asked {card.asked_memory_mib}" if percent else ""
    return (
        f"{card.uuid} {card.reason} (free {card.free_memory_mib} of {card.memory_mib} MiB"
        f"{asked}, {card.free_cores}% cores, {card.free_slots} slots)"
    )
