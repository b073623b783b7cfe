"""HAMi's lock protocol as values: whose turn it is, and what is left to allocate (HAMi v2.10)."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from hami_device_plugin.inventory import SLOT_PREFIX
from hamikit import names
from hamikit.codec import CodecError, GrantedDevice, decode_grant
from hamikit.objects import Pod

_DASHES_OF_A_SLOT = 6


class LockError(Exception):
    """An allocation that cannot be; kubelet fails the pod with this text."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The pod that a node's lock was taken for."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Turn:
    """The next container to be served: its place among all containers and its cards.

    `rest` is the annotation without it.
    """

    index: int
    devices: tuple[GrantedDevice, ...]
    rest: str

    @property
    def last(self) -> bool:
        """Whether nothing is left to allocate after it."""
        return names.VENDOR_NVIDIA not in self.rest


def owner(value: str) -> Owner | None:
    """Whom a lock names; None for the old form, which is a time only.

    Raises:
        LockError: another form.
    """
    stamp, *named = value.split(",")
    try:
        datetime.fromisoformat(stamp)
    except ValueError:
        named = [""]
    if named and (len(named) != 2 or not all(named)):
        raise LockError(
            f"the node's lock {names.NODE_LOCK}={value!r} is no '<time>,<namespace>,<pod>'; "
            "remove the annotation from the node"
        )
    return Owner(*named) if named else None


def is_of(value: str, pod: Pod) -> bool:
    """Whether a lock may be taken off for this pod: its own, or one of the old form."""
    return "," not in value or value.endswith(f",{pod.metadata.namespace},{pod.metadata.name}")


def turn(text: str) -> Turn:
    """The first container that has not been served yet.

    `text` is the annotation `hami.io/vgpu-devices-to-allocate`; every container's entry ends in
    `;`, and HAMi adds one each time that it writes.

    Raises:
        LockError: it cannot be read, or nothing is left.
    """
    entries = text.split(";")
    for index, entry in enumerate(entries):
        try:
            slots = decode_grant(f"{entry};")
        except CodecError as error:
            raise LockError(f"device request not found: {error}") from error
        devices = tuple(d for d in slots[0] if d.vendor == names.VENDOR_NVIDIA) if slots else ()
        if devices:
            rest = [*entries[:index], "", *entries[index + 1 :]]
            return Turn(index, devices, "".join(f"{left};" for left in rest))
    raise LockError(f"no pending device allocation found in {text!r}")


def waits(pod: Pod, node: str) -> bool:
    """Whether a pod is one whose devices are still to be allocated on this node."""
    said = pod.metadata.annotations
    return (
        pod.status.phase == "Pending"
        and pod.spec.node_name == node
        and bool(said.get(names.POD_BIND_TIME))
        and said.get(names.POD_BIND_PHASE) in (names.BIND_ALLOCATING, names.BIND_SUCCESS)
        and said.get(names.POD_NODE) == node
    )


def physical_id(slot: str) -> str:
    """The card that an id of HAMi's stands for: `<uuid>-<n>` or `<uuid>::<n>`."""
    if "::" in slot:
        return slot.partition("::")[0]
    card, _, number = slot.rpartition("-")
    if slot.count("-") == _DASHES_OF_A_SLOT and number.isdecimal():
        return card
    return slot


def of_cards(ids: Iterable[str]) -> list[str]:
    """The ids that stand for a card.

    Others are from before the node changed to this protocol: a container held them then and has
    ended, or kubelet has not heard of the change yet. Any card does for them.
    """
    return [slot for slot in ids if not slot.startswith(SLOT_PREFIX)]


def preferred(
    cards: Sequence[str], available: Sequence[str], must: Sequence[str], size: int
) -> list[str]:
    """Ids of the granted cards, those that must be included first; empty when there are too few."""
    if len(cards) < size:
        return []
    forced, chosen = list(must), list(must)
    for card in cards[:size]:
        of_card = next((slot for slot in forced if physical_id(slot) == card), None)
        if of_card is not None:
            forced.remove(of_card)
            continue
        free = (s for s in available if physical_id(s) == card and s not in chosen)
        chosen.extend([next(free, "")])
    return chosen if len(chosen) == size and all(chosen) else []


def preferences(
    pod: Pod, wishes: Sequence[tuple[Sequence[str], Collection[str], int]]
) -> list[list[str]]:
    """For each container (available ids, ids that must be, how many) the ids of granted cards.

    An empty list where there is no preference; the n-th container with cards is the n-th wish.
    """
    text = pod.metadata.annotations.get(names.POD_DEVICES_TO_ALLOCATE, "")
    chosen: list[list[str]] = []
    for available, must, size in wishes:
        try:
            next_turn = turn(text)
        except LockError:
            chosen.append([])
            continue
        cards = [device.uuid for device in next_turn.devices]
        chosen.append(preferred(cards, available, list(must), size))
        text = next_turn.rest
    return chosen
