"""What the node has to give: cards as announced to schedulers, slots as announced to kubelet."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from hami_device_plugin.mig import Division
from hami_device_plugin.settings import Settings
from hamikit import names
from hamikit.codec import RegisteredDevice
from hamikit.gpu import Card

SLOT_PREFIX = "slot-"
NONE: Mapping[str, Division] = MappingProxyType({})


def merge(known: Iterable[Card], seen: Iterable[Card]) -> tuple[Card, ...]:
    """The cards seen now, and those known from before that are missing, as unhealthy."""
    present = {card.uuid: card for card in seen}
    lost = (replace(card, healthy=False) for card in known if card.uuid not in present)
    return tuple(sorted([*present.values(), *lost], key=lambda card: (card.index, card.uuid)))


def announced(
    cards: Iterable[Card],
    settings: Settings,
    unhealthy: Collection[str] = (),
    divisions: Mapping[str, Division] = NONE,
) -> tuple[RegisteredDevice, ...]:
    """The cards as the register annotation lists them (form: HAMi v2.10).

    A card whose memory nobody knows cannot be shared out and is left out. Its mode is `mig` while
    that is on; cards that know no MIG are shared as ever. A card whose MIG mode is not what the
    node's mode needs (`auto` needs none) or is not told, or that has no profile, gets no pods.
    """
    found: list[RegisteredDevice] = []
    for card in cards:
        memory = card.memory_mib or settings.preconfigured_memory_mib
        hidden = card.uuid in settings.hidden_uuids or card.index in settings.hidden_indexes
        if hidden or not memory:
            continue
        division = divisions.get(card.uuid)
        mode = _mode(settings, division)
        divided = mode == names.MODE_MIG
        wished = settings.mode == names.MODE_MIG
        as_wished = settings.mode == names.MODE_AUTO or divided == wished
        usable = division is None or (
            division.known and as_wished and (not divided or bool(division.profiles))
        )
        found.append(
            RegisteredDevice(
                id=card.uuid,
                index=card.index,
                count=settings.split_count,
                devmem=memory if divided else int(memory * settings.memory_scaling),
                devcore=100 if divided else int(100 * settings.core_scaling),
                type=_type(card.name),
                numa=card.numa or 0,
                mode=mode,
                mig_profiles=division.profiles if division and divided else (),
                health=card.healthy and usable and card.uuid not in unhealthy,
            )
        )
    return tuple(found)


def _mode(settings: Settings, division: Division | None) -> str:
    """What the card is now: whoever has something of it keeps that while the wish is another."""
    if division is not None and division.on:
        return names.MODE_MIG
    divides = settings.mode in (names.MODE_MIG, names.MODE_AUTO)
    return names.MODE_HAMI_CORE if divides else settings.mode


def _type(name: str) -> str:
    return name if name.startswith("NVIDIA") else f"NVIDIA-{name}"


def slot_ids(count: int) -> list[str]:
    """The ids of `count` slots; the n-th is the same at every start of the plugin."""
    return [f"{SLOT_PREFIX}{n:04d}" for n in range(count)]


def slots(devices: Sequence[RegisteredDevice], held: Collection[str]) -> dict[str, bool]:
    """Every slot id and whether it is healthy.

    A slot stands for no particular card: which one a container gets is its grant's business. Held
    ids are always healthy, also ids of other plugins, because after its own restart kubelet kills
    the pods whose ids are not; what a lost card takes away are free slots, the last ones first.
    """
    total = sum(device.count for device in devices)
    usable = sum(device.count for device in devices if device.health)
    return share(total, usable, held)


def card_slots(devices: Sequence[RegisteredDevice], held: Collection[str]) -> dict[str, bool]:
    """HAMi's slot ids, `<uuid>-<n>`, and whether each is healthy: as its card, or held."""
    own = {f"{d.id}-{n}": d.health for d in devices for n in range(d.count)}
    return {**own, **dict.fromkeys(sorted(held), True)}


def share(total: int, usable: int, held: Collection[str]) -> dict[str, bool]:
    """`total` slots with as many healthy as are usable, and at least the held ones."""
    ids = slot_ids(total)
    free = [slot for slot in ids if slot not in held]
    room = max(0, usable - len(held))
    healthy = {*held, *free[:room]}
    return {slot: slot in healthy for slot in sorted({*ids, *held})}
