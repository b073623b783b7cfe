"""What a node has: its cards, by family, and the conditions under which it takes pods."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import intern

from hamikit import names
from hamikit.ascend import NODE_SOFT
from hamikit.codec import (
    CodecError,
    RegisteredDevice,
    decode_pair_scores,
    decode_register,
    decode_register_csv,
    default_mode,
    split_list,
)
from hamikit.devices import REGISTER_CSV, REGISTER_JSON, DeviceFamily
from hamikit.instances import MigProfile, Placement
from hamikit.mig import BlockedPlacement, decode_blocked
from hamikit.objects import Node
from hamikit.quantity import QuantityError, parse_integer

MODE_MIG = "mig"
MIG_PLACES_MAX = 128
"""The profiles of an A100 have nineteen places together; a bound for an annotation that was made
to be slow."""
PairScores = Mapping[str, Mapping[str, int]]
"""Card -> other card -> how well they are connected."""

_DECODERS: dict[str, Callable[[str], list[RegisteredDevice]]] = {
    REGISTER_JSON: decode_register,
    REGISTER_CSV: decode_register_csv,
}


@dataclass(frozen=True, slots=True)
class Card:
    """One card as its node announces it; `slots` is how many tasks may share it.

    `network` is the group of cards that it is wired to, where the node tells; `profiles` are the
    MIG instances that can be made of it, `blocked` where none can, whatever is reserved.
    """

    uuid: str
    index: int
    slots: int
    memory_mib: int
    cores: int
    type: str
    numa: int
    mode: str
    health: bool
    vendor: str = names.VENDOR_NVIDIA
    network: int | None = None
    profiles: tuple[MigProfile, ...] = ()
    blocked: tuple[BlockedPlacement, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node offers of one family.

    `allocatable` counts the device ids that kubelet can hand out. `fault` says why the register
    annotation could not be read, `binding_reason` why the node offers no late binding.
    """

    vendor: str
    cards: tuple[Card, ...] = ()
    binding: str = ""
    binding_reason: str = ""
    allocatable: int = 0
    fault: str = ""
    pair_scores: PairScores = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says about itself; equal facts allow equal pods."""

    name: str
    offers: tuple[Offer, ...] = ()
    cordoned: frozenset[str] = frozenset()
    paused: str = ""

    def offer(self, vendor: str) -> Offer | None:
        """What the node offers of this family."""
        return next((offer for offer in self.offers if offer.vendor == vendor), None)

    @property
    def cards(self) -> tuple[Card, ...]:
        """The cards of all families."""
        if len(self.offers) == 1:
            return self.offers[0].cards
        return tuple(card for offer in self.offers for card in offer.cards)

    @property
    def fault(self) -> str:
        """Why cards of the node cannot be read; empty when they can."""
        return "; ".join(offer.fault for offer in self.offers if offer.fault)

    @property
    def binding_reason(self) -> str:
        """Why the node offers no late binding, where it says so."""
        return next((offer.binding_reason for offer in self.offers if offer.binding_reason), "")


LOCK_OFF = "the node speaks HAMi's lock protocol, which is switched off (--lock-protocol)"


def facts_of(node: Node, families: Sequence[DeviceFamily], *, lock: bool = False) -> NodeFacts:
    """Read a node; a family without readable cards keeps its fault and offers nothing.

    `lock` is whether we speak HAMi's lock protocol.
    """
    annotations = node.metadata.annotations
    return NodeFacts(
        name=node.metadata.name,
        offers=tuple(
            _offer(node, family, lock=lock)
            for family in families
            if family.register_annotation in annotations
        ),
        cordoned=frozenset(split_list(annotations.get(names.NODE_CORDON, ""))),
        paused=annotations.get(names.NODE_PAUSED, ""),
    )


def _offer(node: Node, family: DeviceFamily, *, lock: bool) -> Offer:
    annotations = node.metadata.annotations
    binding, reason = _binding(node, family)
    if binding == names.BINDING_LOCK and not lock:
        binding, reason = "", reason or LOCK_OFF
    offer = Offer(
        vendor=family.vendor,
        binding=binding,
        binding_reason=reason,
        allocatable=_allocatable(node, family.count),
    )
    try:
        devices = _DECODERS[family.register](annotations[family.register_annotation])
        scores = decode_pair_scores(annotations.get(names.NODE_PAIR_SCORES, "[]"))
    except CodecError as error:
        return replace(offer, fault=str(error))
    return replace(offer, cards=_cards(devices, family, node), pair_scores=scores)


def _binding(node: Node, family: DeviceFamily) -> tuple[str, str]:
    """By which protocol the family's plugin on the node binds, and why not late."""
    if not family.announces_binding:
        return names.BINDING_LOCK, ""
    said = node.metadata.annotations.get(names.NODE_BINDING)
    reason = node.metadata.annotations.get(names.NODE_BINDING_REASON, "")
    if said is None and not reason:
        # Nothing said at all: HAMi's own plugin.
        return names.BINDING_LOCK, ""
    return said or "", reason


def _cards(devices: list[RegisteredDevice], family: DeviceFamily, node: Node) -> tuple[Card, ...]:
    soft = _soft(node, family)
    # The plugin's order is not stable; placement would drift with it.
    ordered = sorted(devices, key=lambda device: device.index)
    cards = {device.id: _card(device, family, soft=soft) for device in ordered}
    for uuid, places in _blocked(node).items():
        if uuid in cards and cards[uuid].profiles:
            cards[uuid] = replace(cards[uuid], blocked=places)
    return tuple(cards.values())


def _blocked(node: Node) -> dict[str, tuple[BlockedPlacement, ...]]:
    """Card -> where no instance can be made and why, as far as the node says so."""
    try:
        entries = decode_blocked(node.metadata.annotations.get(names.NODE_MIG_BLOCKED, ""))
    except CodecError:
        return {}  # written anew by who wrote it; until then a pod may be sent back
    found: dict[str, dict[Placement, BlockedPlacement]] = {}
    for entry in entries[:MIG_PLACES_MAX]:
        found.setdefault(entry.gpu_uuid, {})[entry.placement] = entry
    return {uuid: tuple(places.values()) for uuid, places in found.items()}


def _card(device: RegisteredDevice, family: DeviceFamily, *, soft: bool) -> Card:
    mode = default_mode(device)
    if family.soft_mode:
        mode = family.soft_mode if soft else ""
    return Card(
        uuid=intern(device.id),
        index=device.index,
        slots=device.count,
        memory_mib=device.devmem,
        # A chip that is shared without templates is shared in percent.
        cores=100 if soft else device.devcore,
        type=intern(device.type),
        numa=device.numa,
        mode=intern(mode),
        health=device.health,
        vendor=family.vendor,
        network=_network(device),
        profiles=_profiles(device) if mode == MODE_MIG else (),
    )


def _profiles(device: RegisteredDevice) -> tuple[MigProfile, ...]:
    """What can be made; nothing where the annotation names more places than any card has."""
    profiles = tuple(p for p in device.mig_profiles if p.name and p.memory_mib > 0)
    places = [place for profile in profiles for place in profile.placements]
    if len(places) > MIG_PLACES_MAX or any(p.start < 0 or p.size <= 0 for p in places):
        return ()
    return profiles


def _soft(node: Node, family: DeviceFamily) -> bool:
    """Whether the node shares the family's cards without templates."""
    if not family.soft_mode:
        return False
    said = node.metadata.annotations.get(NODE_SOFT)
    return family.soft_nodes if said is None else said == "true"


def _network(device: RegisteredDevice) -> int | None:
    value = (device.custominfo or {}).get("NetworkID")
    # Writers differ in whether it is 1 or 1.0; a text or a truth value is no group.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value)


def _allocatable(node: Node, resource: str) -> int:
    try:
        return parse_integer(node.status.allocatable.get(resource, 0))
    except QuantityError:
        return 0
