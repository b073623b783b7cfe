"""How well two cards are connected, as HAMi v2.10 scores it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hamikit.codec import go_json

# What two cards share on PCIe, by NVML's number of their common ancestor.
_PCIE = {50: 10, 40: 20, 30: 30, 20: 40, 10: 50, 0: 60}
_PER_LINK, _MOST_LINKS = 100, 18


@dataclass(frozen=True, slots=True)
class Links:
    """A card's NVLinks in use: how many to each PCI bus id, and how many to switches."""

    bus_id: str = ""
    to: Mapping[str, int] = field(default_factory=dict)
    to_switch: int = 0


def link_count(a: Links, b: Links) -> int | None:
    """NVLinks between two cards; None when the two do not agree on it."""
    there, back = a.to.get(b.bus_id, 0), b.to.get(a.bus_id, 0)
    if there != back:
        return None
    if there:
        return there
    return min(a.to_switch, b.to_switch) if a.to else 0


def pair_score(ancestor: int | None, links: int | None) -> int:
    """PCIe's share and NVLink's; 0 when the two cards do not agree on their links."""
    if links is None:
        return 0
    nvlink = _PER_LINK * links if 1 <= links <= _MOST_LINKS else 0
    return _PCIE.get(ancestor, 0) + nvlink if ancestor is not None else nvlink


Scores = Mapping[str, Mapping[str, int]]
"""By UUID, then by the other card's UUID."""


def encode_scores(scores: Scores, order: Sequence[str]) -> str | None:
    """The annotation `hami.io/node-nvidia-score` for these cards; None without a pair."""
    listed = [
        {
            "uuid": uuid,
            "score": {
                other: score
                for other, score in sorted(scores.get(uuid, {}).items())
                if other in order
            },
        }
        for uuid in order
    ]
    return go_json(listed) if any(entry["score"] for entry in listed) else None
