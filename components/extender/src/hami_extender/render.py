"""Answers about pods as text for people."""

from collections.abc import Iterator, Sequence

from hami_extender.answers import CardAnswer, NodeAnswer
from hami_extender.survey import PodAnswer


def pod_text(answer: PodAnswer) -> str:
    """One pod: what it is, why, and card by card what would help."""
    lines = [f"{answer.pod}: {answer.state}", f"  {answer.text}"]
    if answer.last_attempt_s is not None:
        lines.append(f"  kube-scheduler last asked {answer.last_attempt_s} s ago")
    lines += [
        f"  container {device.container}: {device.uuid}, {device.memory_mib} MiB, "
        f"{device.cores}% cores"
        for device in answer.devices
    ]
    lines += [
        f"  {nodes} {'node' if nodes == 1 else 'nodes'}: {reason}"
        for reason, nodes in answer.reasons.items()
    ]
    lines += [
        f"  quota limits.{standing.resource}: {standing.used} of {standing.limit} used"
        for standing in answer.quota
    ]
    for node in answer.nodes:
        lines += _node(node)
    left = answer.fitting + answer.refused - len(answer.nodes)
    if left and answer.nodes:
        lines.append(f"  ... and {left} more nodes (limit=N shows N)")
    return "\n".join(lines) + "\n"


def pods_text(answers: Sequence[PodAnswer]) -> str:
    """All waiting pods, each with its reasons."""
    return "".join(map(pod_text, answers)) or "no pod waits for devices\n"


def _node(answer: NodeAnswer) -> Iterator[str]:
    yield f"  node {answer.node}: {'fits' if answer.fits else answer.reason}"
    if answer.detail:
        yield f"    {answer.detail}"
    if answer.container:
        yield f"    container {answer.container} asks for {answer.asked}"
    if answer.remedy:
        yield f"    -> {answer.remedy}"
    for card in answer.cards:
        yield from _card(card)


def _card(card: CardAnswer) -> Iterator[str]:
    said = f" {card.reason}" if card.reason else ""
    yield (
        f"    card {card.index} {card.uuid} ({card.type}):{said} free {card.free_memory_mib} of "
        f"{card.memory_mib} MiB, {card.free_cores} of {card.cores}% cores, {card.free_slots} of "
        f"{card.slots} slots"
    )
    if card.blocked:
        yield f"      no MIG instance on {', '.join(card.blocked)}"
    if card.held_by:
        yield f"      held by {', '.join(card.held_by)}"
    if card.remedy:
        yield f"      -> {card.remedy}"
