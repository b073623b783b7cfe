"""What would make a pod fit, for each reason why it does not."""

from collections.abc import Callable
from dataclasses import dataclass

from hami_extender import fit, placement, wish
from hamikit import names


@dataclass(frozen=True, slots=True)
class Room:
    """What of a card matters for a remedy; `tasks` is how many share it now.

    `largest_mib` is the memory of the largest MIG instance that could be made of it.
    """

    free_memory_mib: int
    short_memory_mib: int
    free_cores: int
    asked_cores: int
    tasks: int
    largest_mib: int = 0


def _memory(room: Room) -> str:
    wait = f"wait until {room.short_memory_mib} MiB more are free"
    if room.free_memory_mib <= 0:
        return wait
    return f"ask for at most {room.free_memory_mib} MiB, or {wait}"


def _cores(room: Room) -> str:
    wait = f"wait until {room.asked_cores - room.free_cores}% more compute is free"
    if room.free_cores <= 0:
        return wait
    return f"ask for at most {room.free_cores}% cores, or {wait}"


def _exclusive(room: Room) -> str:
    if room.asked_cores >= 100:
        return f"ask for less than 100% cores, or wait until the card's {room.tasks} tasks end"
    return f"wait until the card's {room.tasks} tasks end: one side wants the card to itself"


def _instance(room: Room) -> str:
    wait = "wait until an instance of this card is given back"
    if not room.largest_mib:
        return wait
    return f"ask for at most {room.largest_mib} MiB, or {wait}"


def _says(text: str) -> Callable[[Room], str]:
    return lambda _room: text


_CARD: dict[str, Callable[[Room], str]] = {
    fit.MEMORY_SHORT: _memory,
    fit.CORES_SHORT: _cores,
    fit.EXCLUSIVE_CONFLICT: _exclusive,
    fit.CORES_EXHAUSTED: _says("wait until compute is given back; all of it is promised"),
    fit.SLOTS_EXHAUSTED: _says("wait until one of its tasks ends, or raise deviceSplitCount"),
    wish.TYPE_MISMATCH: _says(
        f"change the pod's annotation {names.POD_USE_TYPE}, {names.POD_NOUSE_TYPE} "
        f"or {names.POD_VGPU_MODE}"
    ),
    wish.MODE_MISMATCH: _says("leave out the annotation that asks for this way of sharing"),
    fit.UUID_MISMATCH: _says(
        f"change the pod's annotation {names.POD_USE_UUID} or {names.POD_NOUSE_UUID}"
    ),
    fit.NOT_HEALTHY: _says("repair the card; the node's device plugin logs what is wrong"),
    fit.CORDONED: _says(f"take the card out of the node's annotation {names.NODE_CORDON}"),
    fit.QUOTA_NOT_FIT: _says(
        "raise the limit in the namespace's ResourceQuota, or wait until a pod of it ends"
    ),
    fit.MIG_INFEASIBLE: _instance,
    fit.NUMA_NOT_FIT: _says(f"ask for fewer cards, or leave out {names.POD_NUMA_BIND}"),
}

_NODE: dict[str, str] = {
    fit.DEVICES_SHORT: "ask for at most {cards} cards in a container",
    placement.UNREGISTERED: "start the device plugin on the node, if it has cards",
    placement.REGISTER_UNREADABLE: (
        f"delete the node's annotation {names.NODE_REGISTER}; its device plugin writes it anew"
    ),
    placement.BINDING_UNSUPPORTED: (
        "see the node's annotation " + names.NODE_BINDING_REASON + "; usually CDI is switched off"
    ),
    placement.PAUSED: f"wait, or remove the node's annotation {names.NODE_PAUSED}",
    placement.PLUGIN_NOT_READY: "start the device plugin on the node; kubelet has no devices of it",
    placement.GRANT_UNREADABLE: "delete the pod on this node whose grant cannot be read",
    placement.SLOTS_EXHAUSTED: "wait until a pod on this node ends, or raise deviceSplitCount",
}


def for_card(reason: str, room: Room) -> str:
    """One sentence; empty where nothing is known to help, or nothing has to."""
    remedy = _CARD.get(reason)
    return remedy(room) if remedy else ""


def for_node(reason: str, cards: int) -> str:
    """The same for a node that says no as a whole."""
    return _NODE.get(reason, "").format(cards=cards)
