"""Which cards are to be divided, by the operator's settings of single nodes (config.json)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hami_mig_manager.state import Card
from hamikit import names
from hamikit.deviceconfig import ConfigError

_MODES = (names.MODE_MIG, names.MODE_HAMI_CORE, names.MODE_AUTO)


@dataclass(frozen=True, slots=True)
class Wish:
    """The mode of a node's cards: None where nobody has said any, and then none is changed.

    `automatic`: what pods wait for decides.
    """

    divided: bool | None = None
    hidden_uuids: frozenset[str] = frozenset()
    hidden_indexes: frozenset[int] = frozenset()
    automatic: bool = False

    def of(self, card: Card) -> bool | None:
        """Whether a card is to be divided, None for one that is nobody's business here."""
        return None if self._hidden(card) else self.divided

    def leaves_open(self, card: Card) -> bool:
        """Whether a card may have either mode, as pods need it."""
        return self.automatic and not self._hidden(card)

    def _hidden(self, card: Card) -> bool:
        return card.uuid in self.hidden_uuids or card.index in self.hidden_indexes


def load_wish(path: Path | None, node: str) -> Wish:
    """What the file says of a node; a file that is not there says nothing.

    Raises:
        ConfigError: it cannot be read.
    """
    if path is None:
        return Wish()
    try:
        return wish_of(path.read_text(encoding="utf-8"), node)
    except FileNotFoundError:
        return Wish()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def wish_of(text: str, node: str) -> Wish:
    """What config.json says of a node; of several entries the later counts, keys in any case.

    Raises:
        ConfigError: not the form of config.json, or a mode that there is not.
    """
    mode: Any = None
    hidden: Mapping[str, Any] = {}
    try:
        for entry in map(_lowered, _lowered(json.loads(text))["nodeconfig"]):
            if entry.get("name") == node:
                mode = entry.get("operatingmode", mode)
                hidden = _lowered(entry.get("filterdevices") or hidden)
        uuids, indexes = hidden.get("uuid") or (), hidden.get("index") or ()
        wish = Wish(None, frozenset(uuids), frozenset(map(int, indexes)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"config.json: {error!r} in what it says of node {node}") from error
    if mode not in (None, "", *_MODES):
        modes = " or ".join(_MODES)
        raise ConfigError(f"config.json: operatingmode of {node} is {mode!r}, must be {modes}")
    if mode == names.MODE_AUTO:
        return replace(wish, automatic=True)
    return replace(wish, divided=mode == names.MODE_MIG if mode else None)


def _lowered(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in mapping.items()}
