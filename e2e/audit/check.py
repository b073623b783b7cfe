"""The promises: each rule looks at a snapshot and names what breaks it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from e2e.audit.grants import taken
from e2e.audit.model import MIB, Container, NodeSide, Pod, Snapshot, Violation

EXCLUSIVE = 100
"""Percent: a task with that much has its card to itself, whatever the card announces."""


def readable(snapshot: Snapshot) -> Iterator[Violation]:
    """Every announcement and every grant can be read."""
    for node in snapshot.nodes:
        if node.fault:
            yield Violation("unreadable-register", node.name, node.name, node.fault)
    for pod in snapshot.pods:
        if pod.fault:
            yield Violation("unreadable-grant", pod.node, pod.name, pod.fault)


def on_its_node(snapshot: Snapshot) -> Iterator[Violation]:
    """A grant is of the node that the pod runs on."""
    for pod in snapshot.pods:
        if pod.granted_node != pod.node:
            text = f"granted on {pod.granted_node!r}, but the pod is on {pod.node!r}"
            yield Violation("wrong-node", pod.node, pod.name, text)


def known_cards(snapshot: Snapshot) -> Iterator[Violation]:
    """A grant names cards that the pod's node announces, and those exist."""
    home = {card.uuid: node.name for node in snapshot.nodes for card in node.cards}
    for pod in snapshot.pods:
        for uuid in taken(pod.containers):
            if home.get(uuid) != pod.node:
                where = f"is a card of {home[uuid]}" if uuid in home else "is nobody's card"
                yield Violation("unknown-card", pod.node, pod.name, f"{uuid} {where}")
    for node in snapshot.nodes:
        real = snapshot.sides.get(node.name, NodeSide()).real_cards
        for card in node.cards:
            if real is not None and card.uuid not in real:
                text = f"announces {card.uuid}, which it does not have"
                yield Violation("unknown-card", node.name, card.uuid, text)


def within_capacity(snapshot: Snapshot) -> Iterator[Violation]:
    """The grants on a card add up to no more than the card."""
    for node in snapshot.nodes:
        for card in node.cards:
            holders = _holders(snapshot, node.name, card.uuid)
            tasks, memory, cores = (sum(share[i] for share in holders.values()) for i in range(3))
            who = ", ".join(sorted(holders))
            rows = [("slots", tasks, card.slots), ("memory", memory, card.memory_mib)]
            # One task with a card of its own may have it all, whatever the card announces.
            if tasks > 1:
                rows.append(("cores", cores, card.cores))
            for what, granted, there in rows:
                if granted > there:
                    text = f"{granted} granted of {there}, to {who}"
                    yield Violation(f"overcommitted-{what}", node.name, card.uuid, text)


def exclusive(snapshot: Snapshot) -> Iterator[Violation]:
    """A card that a pod has to itself is in no other pod's grant."""
    for node in snapshot.nodes:
        for card in node.cards:
            holders = _holders(snapshot, node.name, card.uuid)
            alone = sorted(
                pod.name
                for pod in snapshot.pods
                if pod.name in holders and _wants_alone(pod, card.uuid)
            )
            if alone and len(holders) > 1:
                text = f"exclusive to {', '.join(alone)}, granted to {', '.join(sorted(holders))}"
                yield Violation("exclusive-shared", node.name, card.uuid, text)


def _wants_alone(pod: Pod, card: str) -> bool:
    devices = (device for container in pod.containers for device in container.granted)
    return any(device.uuid == card and device.cores >= EXCLUSIVE for device in devices)


def _holders(snapshot: Snapshot, node: str, card: str) -> dict[str, tuple[int, int, int]]:
    """Pod -> what it takes of a card."""
    shares = ((pod.name, taken(pod.containers)) for pod in snapshot.pods if pod.node == node)
    return {name: share[card] for name, share in shares if card in share}


def enforced(snapshot: Snapshot) -> Iterator[Violation]:
    """Every running container with a grant has a control file that says the same."""
    for pod, container, side in _on_read_nodes(snapshot):
        if side.controls is None or not container.running or not container.granted:
            continue
        subject = f"{pod.name}/{container.name}"
        file = side.controls.get((pod.uid, container.name))
        if file is None:
            text = "runs with a grant but without a control file"
            yield Violation("no-control-file", pod.node, subject, text)
        elif file.fault:
            yield Violation("bad-control-file", pod.node, subject, file.fault)
        else:
            granted = {(d.uuid, d.memory_mib * MIB, d.cores % EXCLUSIVE) for d in container.granted}
            limits = {(i.uuid, i.memory_bytes, i.cores % EXCLUSIVE) for i in file.limits}
            if granted != limits or len(container.granted) != len(file.limits):
                said = ", ".join(map(str, file.limits)) or "nothing"
                text = f"granted {', '.join(map(str, container.granted))}; control file: {said}"
                yield Violation("control-differs", pod.node, subject, text)


def used_as_granted(snapshot: Snapshot) -> Iterator[Violation]:
    """Nobody holds memory on a card without a grant for it, or more than the grant."""
    for name, side in snapshot.sides.items():
        pods = {pod.uid: pod for pod in snapshot.pods if pod.node == name}
        held: Counter[tuple[str, str, str]] = Counter()
        for use in side.uses or ():
            pod = pods.get(use.owner[0]) if use.owner else None
            container = _container(pod, use.owner[1]) if pod and use.owner else None
            if pod is None or container is None:
                why = use.why or f"pod {use.owner} has no grant here"
                text = f"process {use.pid} holds {use.data_bytes / MIB:g} MiB, and {why}"
                subject = f"{use.card} process {use.pid}"
                yield Violation("use-without-grant", name, subject, text)
                continue
            held[pod.uid, container.name, use.card] += use.data_bytes
        for (uid, container_name, card), size in sorted(held.items()):
            yield from _over(name, pods[uid], container_name, card, size)


def _over(node: str, pod: Pod, container: str, card: str, size: int) -> Iterator[Violation]:
    devices = next(c.granted for c in pod.containers if c.name == container)
    granted = sum(d.memory_mib for d in devices if d.uuid == card)
    subject = f"{pod.name}/{container}"
    if all(d.uuid != card for d in devices):
        text = f"holds {size / MIB:g} MiB on {card}, a card that it was not granted"
        yield Violation("use-without-grant", node, subject, text)
    elif size > granted * MIB:
        text = f"holds {size / MIB:g} MiB on {card}, granted {granted} MiB"
        yield Violation("use-above-grant", node, subject, text)


def _container(pod: Pod, container_id: str) -> Container | None:
    return next((c for c in pod.containers if container_id in c.ids), None)


def _on_read_nodes(snapshot: Snapshot) -> Iterator[tuple[Pod, Container, NodeSide]]:
    for pod in snapshot.pods:
        side = snapshot.sides.get(pod.node)
        if side is not None and not pod.fault:
            for container in pod.containers:
                yield pod, container, side


Rule = Callable[[Snapshot], Iterator[Violation]]
RULES: tuple[Rule, ...] = (
    readable,
    on_its_node,
    known_cards,
    within_capacity,
    exclusive,
    enforced,
    used_as_granted,
)


def audit(snapshot: Snapshot) -> list[Violation]:
    """All violations, sorted; none twice."""
    found: dict[Violation, Violation] = {}
    for rule in RULES:
        for violation in rule(snapshot):
            found.setdefault(violation, violation)
    return sorted(found)


def per_card(snapshot: Snapshot) -> dict[tuple[str, str], dict[str, int]]:
    """The three accounts of every announced card side by side, for people."""
    rows: dict[tuple[str, str], dict[str, int]] = {}
    enforced_mib: dict[tuple[str, str], int] = defaultdict(int)
    used: dict[tuple[str, str], int] = defaultdict(int)
    for pod, container, side in _on_read_nodes(snapshot):
        file = (side.controls or {}).get((pod.uid, container.name))
        for limit in file.limits if file and container.running else ():
            enforced_mib[pod.node, limit.uuid] += limit.memory_bytes // MIB
    for name, side in snapshot.sides.items():
        for use in side.uses or ():
            used[name, use.card] += use.data_bytes // MIB
    for node in snapshot.nodes:
        for card in node.cards:
            key = node.name, card.uuid
            shares = list(_holders(snapshot, *key).values())
            rows[key] = {
                "slots": card.slots,
                "slots_granted": sum(s[0] for s in shares),
                "memory_mib": card.memory_mib,
                "memory_granted_mib": sum(s[1] for s in shares),
                "cores": card.cores,
                "cores_granted": sum(s[2] for s in shares),
                "memory_enforced_mib": enforced_mib[key],
                "memory_used_mib": used[key],
            }
    return rows
