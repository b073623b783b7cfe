"""What a node has: its cards and the conditions under which it takes pods."""

from dataclasses import dataclass

from hamikit import names
from hamikit.codec import CodecError, RegisteredDevice, decode_register, default_mode, split_list
from hamikit.devices import DeviceFamily
from hamikit.objects import Node
from hamikit.quantity import QuantityError, parse_integer


@dataclass(frozen=True, slots=True)
class Card:
    """One card as its node announces it; `slots` is how many tasks may share it."""

    uuid: str
    index: int
    slots: int
    memory_mib: int
    cores: int
    type: str
    numa: int
    mode: str
    health: bool


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says about itself; equal facts allow equal pods.

    `allocatable` counts the device ids that kubelet can hand out. `fault` says why the register
    annotation could not be read, `binding_reason` why the node offers no late binding.
    """

    name: str
    cards: tuple[Card, ...] = ()
    cordoned: frozenset[str] = frozenset()
    binding: str = ""
    binding_reason: str = ""
    paused: str = ""
    allocatable: int = 0
    fault: str = ""


def facts_of(node: Node, family: DeviceFamily) -> NodeFacts:
    """Read a node; one without readable cards keeps its fault and offers nothing."""
    annotations = node.metadata.annotations
    text = annotations.get(family.register_annotation)
    cards: tuple[Card, ...] = ()
    fault = ""
    if text is not None:
        try:
            cards = _cards(decode_register(text))
        except CodecError as error:
            fault = str(error)
    return NodeFacts(
        name=node.metadata.name,
        cards=cards,
        cordoned=frozenset(split_list(annotations.get(names.NODE_CORDON, ""))),
        binding=annotations.get(names.NODE_BINDING, ""),
        binding_reason=annotations.get(names.NODE_BINDING_REASON, ""),
        paused=annotations.get(names.NODE_PAUSED, ""),
        allocatable=_allocatable(node, family.count),
        fault=fault,
    )


def _cards(devices: list[RegisteredDevice]) -> tuple[Card, ...]:
    # The plugin's order is not stable; placement would drift with it.
    ordered = sorted(devices, key=lambda device: device.index)
    cards = {
        d.id: Card(
            d.id, d.index, d.count, d.devmem, d.devcore, d.type, d.numa, default_mode(d), d.health
        )
        for d in ordered
    }
    return tuple(cards.values())


def _allocatable(node: Node, resource: str) -> int:
    try:
        return parse_integer(node.status.allocatable.get(resource, 0))
    except QuantityError:
        return 0
