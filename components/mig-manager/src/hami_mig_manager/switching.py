"""Changes the modes of cards, one at a time, step by step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import uuid4

import structlog

from hami_mig_manager.auto import Choice, Outlook, decode_choices, encode_choices
from hami_mig_manager.state import Card
from hami_mig_manager.switch import Change, Idle, Note, Stand, next_move, overdue
from hami_mig_manager.verdict import NvmlFailed
from hami_mig_manager.wish import Wish
from hamikit import names
from hamikit.codec import split_list

log = structlog.get_logger()

TRIES: Final = 3
REST_S: Final = 300.0
MOVES: Final = 20
"""More than a change has steps."""


class Modes(Protocol):
    """The node's cards through NVML."""

    def read(self) -> Mapping[str, Card]:
        """All cards that can be divided."""

    def set_mode(self, card: str, *, enabled: bool) -> None:
        """Change a card's mode, now or at its next reset; raises NvmlFailed."""

    def close(self) -> None:
        """Let go of the driver until the next call."""


class Noted(Protocol):
    """The node's object; every method raises ApiError or Unreachable."""

    def annotations(self) -> tuple[Mapping[str, str], str]:
        """What stands there, and its version."""

    def note(self, version: str, annotations: Mapping[str, str | None]) -> None:
        """Put these there, unless it has changed since this version."""

    def held(self) -> frozenset[str] | None:
        """Cards that pods of the node were granted something of; None when that cannot be told."""


def nothing(_outlook: Outlook) -> Mapping[str, Choice] | None:
    """Nobody chooses modes."""
    return None


@dataclass
class Switcher:
    """Does what `switch` says. `now` is in Unix seconds; `failed` hears of changes that fail.

    `choose` says which choices are to stand for the cards that the operator left open, None where
    they are right as they are.
    """

    cards: Modes
    node: Noted
    wish: Callable[[], Wish]
    now: Callable[[], float]
    failed: Callable[[str, str], None] = lambda _step, _reason: None
    token: Callable[[], str] = lambda: uuid4().hex
    choose: Callable[[Outlook], Mapping[str, Choice] | None] = nothing
    _tries: dict[str, int] = field(default_factory=dict)
    _resting: dict[str, float] = field(default_factory=dict)
    _said: str | None = None

    def settle(self) -> float | None:
        """Steps until one has to wait; when to look again, in Unix seconds.

        Raises:
            ApiError, Unreachable, GpuError, ConfigError: nothing can be done at present.
        """
        for _ in range(MOVES):
            stand, version, chosen = self._look()
            noted = stand.annotations.get(names.NODE_MIG_AUTO)
            if chosen != noted:
                self.node.note(version, {names.NODE_MIG_AUTO: chosen})
                log.info("modes of cards are chosen", cards=chosen)
                continue
            move = next_move(stand, self.token())
            if isinstance(move, Note):
                self.node.note(version, move.annotations)
                log.info("mode of a card", step=dict(move.annotations))
            elif isinstance(move, Change):
                self._change(move)
            elif overdue(stand) and self._give_up(stand, version, move.text or ""):
                continue
            else:
                return self._wait(move)
        return self.now() + 1

    def _look(self) -> tuple[Stand, str, str | None]:
        """What there is, the version of the node, and what is to stand there of choices."""
        annotations, version = self.node.annotations()
        cards, wish, found = self.cards.read(), self.wish(), self.node.held()
        held = frozenset(cards) if found is None else found
        modes = {uuid: wish.of(card) for uuid, card in cards.items()}
        wanted = {uuid: mode for uuid, mode in modes.items() if mode is not None}
        text, now = annotations.get(names.NODE_MIG_AUTO, ""), self.now()
        free = {uuid: card for uuid, card in cards.items() if wish.leaves_open(card)}
        stood = decode_choices(text) if wish.automatic else {}
        # A card may be away for a moment, as after a reset; what was chosen for it stands.
        choices = {u: c for u, c in stood.items() if u in free or u not in cards}
        wanted |= {uuid: choice.mode == names.MODE_MIG for uuid, choice in choices.items()}
        outlook = Outlook(
            free,
            choices,
            held,
            frozenset(split_list(annotations.get(names.NODE_CORDON, ""))),
            self._resting,
            names.NODE_MIG_SWITCH in annotations,
            now,
        )
        chosen = self.choose(outlook)
        stand = Stand(cards, wanted, annotations, held, self._resting, now)
        return stand, version, encode_choices(choices if chosen is None else chosen)

    def _wait(self, move: Idle) -> float | None:
        if move.text is not None and move.text != self._said:
            log.info("mode of a card has to wait", text=move.text)
        self._said = move.text
        return None if move.again_s is None else self.now() + move.again_s

    def _change(self, move: Change) -> None:
        """One attempt; a mode that is only pending afterwards is put back after a few of them."""
        before = self.cards.read().get(move.card)
        # Our own client may be what keeps the card from being reset.
        self.cards.close()
        text = "the driver wants a reset of the card: another program has it open"
        try:
            self.cards.set_mode(move.card, enabled=move.divided)
        except NvmlFailed as error:
            text = error.text
        # Right after a reset the driver may not name the card for a moment.
        after = self.cards.read().get(move.card)
        if before is None or after is None:
            log.warning("mode of a card cannot be told", card=move.card)
            return
        if after.enabled == move.divided:
            log.info("mode of a card is changed", card=move.card, divided=move.divided)
            self._tries.pop(move.card, None)
            return
        tries = self._tries[move.card] = self._tries.get(move.card, 0) + 1
        log.warning("mode of a card is not changed", card=move.card, error=text, tries=tries)
        self.failed("mode", "ResetRequired" if after.enabled != after.pending else "DriverError")
        if tries < TRIES:
            return
        self._tries.pop(move.card)
        self._resting[move.card] = self.now() + REST_S
        if after.pending != before.enabled:
            # Or the next reset, whoever makes it, would change the card under running pods.
            self.cards.set_mode(move.card, enabled=before.enabled)

    def _give_up(self, stand: Stand, version: str, text: str) -> bool:
        """Let the others have NVML back: one of them does not answer."""
        log.warning("mode of a card is not changed", error=text)
        self.failed("mode", "NoAnswer")
        for uuid in stand.wanted:
            self._resting[uuid] = stand.now + REST_S
        self.node.note(version, {names.NODE_MIG_PAUSE: None})
        return True
