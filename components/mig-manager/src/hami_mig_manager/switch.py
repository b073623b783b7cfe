"""The next step of changing a card's mode, from what stands on the node; nothing is remembered.

A card is cordoned, becomes idle, everybody lets go of NVML, the driver changes the mode, everybody
comes back, the plugin announces the card in its new mode, the cordon goes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from hami_mig_manager.state import Card
from hamikit import names
from hamikit.codec import CodecError, decode_register, default_mode, split_list

SETTLE_S: Final = 5.0
"""What was bound before the cordon is known by then."""
ANSWER_S: Final = 60.0
"""How long the others have for letting go of NVML."""
LOOK_S: Final = 1.0

T = TypeVar("T")
_ACKNOWLEDGED: Final = (names.NODE_MIG_PAUSE_PLUGIN, names.NODE_MIG_PAUSE_MONITOR)


class Switch(msgspec.Struct, frozen=True):
    """A change that has begun; `cordoned`: the cordon is ours to lift; times in Unix seconds."""

    card: str
    mode: str
    since: int
    cordoned: bool = False


class Pause(msgspec.Struct, frozen=True):
    """The wish that everybody else let go of NVML; they answer with its token."""

    card: str
    token: str
    since: int = 0


@dataclass(frozen=True, slots=True)
class Stand:
    """A node at one moment.

    `wanted` has the cards whose mode is the operator's wish, `held` those that pods were granted
    something of, `resting` those whose last change failed and until when they are left alone.
    """

    cards: Mapping[str, Card]
    wanted: Mapping[str, bool]
    annotations: Mapping[str, str]
    held: frozenset[str] = frozenset()
    resting: Mapping[str, float] = field(default_factory=dict)
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Note:
    """Put these on the node; None takes one off."""

    annotations: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Change:
    """Have the driver change the mode: nobody else has NVML open."""

    card: str
    divided: bool


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing can be done now; why, and after how many seconds to look again."""

    text: str | None = None
    again_s: float | None = None


Move = Note | Change | Idle


def next_move(stand: Stand, token: str) -> Move:
    """What is to be done; `token` is for a pause that begins, and never used twice."""
    switch = _decoded(stand.annotations.get(names.NODE_MIG_SWITCH), Switch)
    paused = names.NODE_MIG_PAUSE in stand.annotations
    if switch is None:
        return Note({names.NODE_MIG_PAUSE: None}) if paused else _begin(stand)
    if switch.since > stand.now:
        return _noted(msgspec.structs.replace(switch, since=int(stand.now)))  # the clock went back
    card = stand.cards.get(switch.card)
    divided = switch.mode == names.MODE_MIG
    if card is None or stand.wanted.get(card.uuid) is not divided:
        # The card has gone, or the operator has thought better of it.
        back = card is not None and card.enabled != card.pending
        return Change(switch.card, not divided) if back else _end(stand, switch)
    if card.fault is None and card.enabled == card.pending == divided:
        return _finish(stand, switch)
    if (why := _busy(stand, card)) is not None:
        return Note({names.NODE_MIG_PAUSE: None}) if paused else Idle(why, LOOK_S)
    return _change(stand, switch, token)


def _begin(stand: Stand) -> Move:
    for card in sorted(stand.cards.values(), key=lambda card: card.index):
        divided = stand.wanted.get(card.uuid)
        settled = card.enabled == card.pending == divided
        if card.fault is not None or divided is None or settled:
            continue
        cordoned = split_list(stand.annotations.get(names.NODE_CORDON, ""))
        mine = card.uuid not in cordoned
        mode = names.MODE_MIG if divided else names.MODE_HAMI_CORE
        switch = Switch(card.uuid, mode, int(stand.now), mine)
        more = {names.NODE_CORDON: ",".join([*cordoned, card.uuid])} if mine else {}
        return _noted(switch, more)
    return Idle()


def _noted(switch: Switch, more: Mapping[str, str] = MappingProxyType({})) -> Note:
    return Note({names.NODE_MIG_SWITCH: msgspec.json.encode(switch).decode(), **more})


def _busy(stand: Stand, card: Card) -> str | None:
    """Why the card must stay as it is for now."""
    if card.fault is not None:
        return f"card {card.uuid} does not answer: {card.fault}"
    if card.uuid in stand.held:
        return f"pods have card {card.uuid}"
    if card.busy:
        return f"processes use card {card.uuid}"
    if card.instances:
        return f"card {card.uuid} still has instances"
    rest = stand.resting.get(card.uuid, 0.0)
    if stand.now < rest:
        return f"the mode of card {card.uuid} could not be changed; it is tried again later"
    return None


def _change(stand: Stand, switch: Switch, token: str) -> Move:
    pause = _decoded(stand.annotations.get(names.NODE_MIG_PAUSE), Pause)
    if stand.now < switch.since + SETTLE_S:
        return Idle("pods that were bound before the cordon may come yet", LOOK_S)
    if pause is None or pause.card != switch.card:
        begun = Pause(switch.card, token, int(stand.now))
        return Note({names.NODE_MIG_PAUSE: msgspec.json.encode(begun).decode()})
    open_yet = [k for k in _ACKNOWLEDGED if stand.annotations.get(k) != pause.token]
    if not open_yet:
        return Change(switch.card, switch.mode == names.MODE_MIG)
    return Idle(f"no {' and no '.join(open_yet)} yet", LOOK_S)


def overdue(stand: Stand) -> bool:
    """Whether somebody has not let go of NVML for so long that the others should have it back."""
    pause = _decoded(stand.annotations.get(names.NODE_MIG_PAUSE), Pause)
    # Later than now: the clock was set back since.
    return pause is not None and not pause.since <= stand.now < pause.since + ANSWER_S


def _finish(stand: Stand, switch: Switch) -> Move:
    """Everybody may have NVML again; then the plugin says that the card is in its new mode."""
    if names.NODE_MIG_PAUSE in stand.annotations:
        return Note({names.NODE_MIG_PAUSE: None})
    if _announced(stand.annotations).get(switch.card) != switch.mode:
        return Idle(f"the device plugin has not announced card {switch.card} anew", LOOK_S)
    return _end(stand, switch)


def _end(stand: Stand, switch: Switch) -> Note:
    changed: dict[str, str | None] = {names.NODE_MIG_SWITCH: None, names.NODE_MIG_PAUSE: None}
    if switch.cordoned:
        left = split_list(stand.annotations.get(names.NODE_CORDON, ""))
        changed[names.NODE_CORDON] = ",".join(c for c in left if c != switch.card) or None
    return Note(changed)


def _announced(annotations: Mapping[str, str]) -> dict[str, str]:
    """Card -> mode, as the device plugin has it on the node."""
    try:
        devices = decode_register(annotations.get(names.NODE_REGISTER, "[]"))
    except CodecError:
        return {}
    return {device.id: default_mode(device) for device in devices}


def _decoded(text: str | None, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(text, type=kind) if text else None
    except (msgspec.DecodeError, RecursionError):
        return None
