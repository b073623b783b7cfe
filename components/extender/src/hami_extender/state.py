"""The whole view at one moment."""

from collections.abc import Callable
from dataclasses import dataclass

from hami_extender.flights import Flights
from hami_extender.inventory import Card, NodeFacts, Offer
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Holding
from hamikit.footprint import NOTHING, Share


@dataclass(frozen=True, slots=True)
class NodeStanding:
    """A node; `facts` is None when it is gone and pods outlive it."""

    name: str
    facts: NodeFacts | None
    used: dict[str, Share]
    ids: dict[str, int]


@dataclass(frozen=True, slots=True)
class State:
    """Nodes, holdings by pod UID, binds under way by pod UID, pods that wait."""

    missing: str
    nodes: tuple[NodeStanding, ...]
    holdings: dict[str, Holding]
    flights: dict[str, str]
    waiting: tuple[str, ...]


def take(snapshot: Snapshot, flights: Flights, missing: Callable[[], str]) -> State:
    """Copy what is there under one lock, for encoding without it."""
    # Asks the lease and perhaps the API server, so not under the lock.
    gap = missing()
    with snapshot.lock:
        return State(
            missing=gap,
            nodes=tuple(
                NodeStanding(state.name, state.facts, dict(state.used), dict(state.ids))
                for state in snapshot.ledger.nodes.values()
            ),
            holdings=dict(snapshot.ledger.holdings),
            flights=flights.under_way(),
            waiting=tuple(
                pod.key
                for pod in snapshot.pods.values()
                if not pod.spec.node_name and pod.metadata.uid not in snapshot.ledger.holdings
            ),
        )


def as_json(state: State) -> dict[str, object]:
    """The view in the words of docs/contract.md."""
    return {
        "missing": state.missing,
        "nodes": [_node(node) for node in state.nodes],
        "pods": [_holding(uid, holding, state.flights) for uid, holding in state.holdings.items()],
        "waiting": sorted(state.waiting),
    }


def _node(node: NodeStanding) -> dict[str, object]:
    facts = node.facts or NodeFacts(node.name)
    return {
        "node": node.name,
        "known": node.facts is not None,
        "paused": facts.paused,
        "families": [_offer(offer, node.ids.get(offer.vendor, 0)) for offer in facts.offers],
        "cards": [_card(card, node.used.get(card.uuid, NOTHING), facts) for card in facts.cards],
        "missing_cards": sorted(node.used.keys() - {card.uuid for card in facts.cards}),
    }


def _offer(offer: Offer, ids_held: int) -> dict[str, object]:
    return {
        "family": offer.vendor,
        "binding": offer.binding,
        "binding_reason": offer.binding_reason,
        "fault": offer.fault,
        "allocatable": offer.allocatable,
        "ids_held": ids_held,
    }


def _card(card: Card, used: Share, facts: NodeFacts) -> dict[str, object]:
    return {
        "uuid": card.uuid,
        "family": card.vendor,
        "index": card.index,
        "type": card.type,
        "mode": card.mode,
        "numa": card.numa,
        "healthy": card.health,
        "cordoned": card.uuid in facts.cordoned,
        "slots": card.slots,
        "memory_mib": card.memory_mib,
        "cores": card.cores,
        "used_slots": used.slots,
        "used_memory_mib": used.memory_mib,
        "used_cores": used.cores,
    }


def _holding(uid: str, holding: Holding, flights: dict[str, str]) -> dict[str, object]:
    return {
        "uid": uid,
        "pod": holding.pod,
        "node": holding.node,
        "kind": holding.kind.value,
        "bind": flights.get(uid, ""),
        "readable": holding.readable,
        "taken": {
            uuid: {"slots": share.slots, "memory_mib": share.memory_mib, "cores": share.cores}
            for uuid, share in holding.taken.items()
        },
        "instances": [
            {
                "uuid": device.uuid,
                "profile": device.instance.profile,
                "start": device.instance.placement.start,
                "size": device.instance.placement.size,
                "mig_uuid": device.instance.mig_uuid,
            }
            for slot in holding.slots
            for device in slot
            if device.instance is not None
        ],
    }
