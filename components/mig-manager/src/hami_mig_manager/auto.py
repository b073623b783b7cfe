"""Which idle card changes its mode for a pod that waits for the other one, if any does."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from hami_mig_manager.state import Card
from hamikit import names

WAIT_S: Final = 30.0
"""A pod that waits for less may yet find room: an instance that is about to go, a new node."""
DWELL_S: Final = 600.0
"""So long a card is left alone after a choice, whatever became of it."""
MODES: Final = frozenset({names.MODE_MIG, names.MODE_HAMI_CORE})


class Choice(msgspec.Struct, frozen=True):
    """The mode that was chosen for a card, when in whole Unix seconds, and for which pod."""

    mode: str
    since: int
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Demand:
    """A pod that no card has room for, and that demands one mode.

    `cards` are those of this node that it would take in that mode, `count` how many of its mode it
    needs at least. `since` is when it was first found to have no room, in Unix seconds.
    """

    pod: str
    mode: str
    cards: frozenset[str]
    count: int = 1
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """A node's cards at one moment, as far as their modes are open.

    `held` are those that pods were granted something of, `cordoned` those that take no pods,
    `resting` those whose last change failed and until when. `choices` are all that stand;
    `changing`: some card's mode is being changed at present.
    """

    cards: Mapping[str, Card]
    choices: Mapping[str, Choice] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    cordoned: frozenset[str] = frozenset()
    resting: Mapping[str, float] = field(default_factory=dict)
    changing: bool = False
    now: float = 0.0

    def mode(self, uuid: str) -> str:
        """The mode that a card is in."""
        return names.MODE_MIG if self.cards[uuid].enabled else names.MODE_HAMI_CORE

    def idle(self, uuid: str) -> bool:
        """Whether nobody uses a card or is kept off it."""
        card = self.cards[uuid]
        settled = card.fault is None and card.enabled == card.pending
        empty = not (card.busy or card.instances or uuid in self.held)
        return settled and empty and uuid not in self.cordoned

    def rested(self, uuid: str) -> bool:
        """Whether a card may be chosen: it was left alone for long enough."""
        choice = self.choices.get(uuid)
        # A choice of the future was made by a clock that has been put right since.
        return choice is None or not 0 <= self.now - choice.since < DWELL_S


def choose(outlook: Outlook, demands: Iterable[Demand]) -> tuple[str, Choice] | None:
    """The card that is to change and why; None where none is to, which is nearly always.

    One card at a time: none is chosen while another is on its way, and none for a pod whose mode
    an idle card has already, because then it waits for something else.
    """
    if outlook.changing or on_the_way(outlook):
        return None
    for demand in sorted(demands, key=lambda demand: (demand.since, demand.pod)):
        if demand.mode not in MODES or outlook.now - demand.since < WAIT_S:
            continue
        idle = sorted(
            (uuid for uuid in demand.cards & outlook.cards.keys() if outlook.idle(uuid)),
            key=lambda uuid: (outlook.cards[uuid].index, uuid),
        )
        ready = [uuid for uuid in idle if outlook.mode(uuid) == demand.mode]
        other = [uuid for uuid in idle if uuid not in ready and outlook.rested(uuid)]
        if other and len(ready) < demand.count <= len(ready) + len(other):
            return other[0], Choice(demand.mode, int(outlook.now), demand.pod)
    return None


def open_to_change(outlook: Outlook) -> bool:
    """Whether some card could be chosen, if a pod waited."""
    return any(outlook.idle(uuid) and outlook.rested(uuid) for uuid in outlook.cards)


def on_the_way(outlook: Outlook) -> list[str]:
    """Cards that are not yet in the mode that was chosen for them."""
    return [
        uuid
        for uuid, choice in outlook.choices.items()
        if uuid in outlook.cards and not _arrived(outlook, uuid, choice)
    ]


def given_up(outlook: Outlook) -> dict[str, Choice]:
    """Choices in place of those that came to nothing: the card stays as it is and gets pods again.

    That is a card that somebody got before its cordon, and one whose mode could not be changed.
    """
    return {
        uuid: Choice(outlook.mode(uuid), int(outlook.now))
        for uuid in on_the_way(outlook)
        if outlook.choices[uuid].mode != outlook.mode(uuid)
        and (uuid in outlook.held or outlook.now < outlook.resting.get(uuid, 0.0))
    }


def _arrived(outlook: Outlook, uuid: str, choice: Choice) -> bool:
    card = outlook.cards[uuid]
    return outlook.mode(uuid) == choice.mode and card.enabled == card.pending


_CHOICES = msgspec.json.Decoder(dict[str, Choice])


def decode_choices(text: str) -> dict[str, Choice]:
    """Read the annotation `hami.io/mig-auto`; what cannot be read says nothing, as no text does."""
    try:
        return _CHOICES.decode(text) if text else {}
    except (msgspec.DecodeError, RecursionError):
        return {}


def encode_choices(choices: Mapping[str, Choice]) -> str | None:
    """Write the annotation; None, which is no annotation, without any choice."""
    return msgspec.json.encode(dict(sorted(choices.items()))).decode() if choices else None
