"""Reasons in few words: kube-scheduler counts equal texts and cuts its event at 1 KiB."""

import re
from collections import Counter
from collections.abc import Callable, Mapping

TEXTS = 20
"""Distinct texts in one answer, at most."""
REST = "other reasons, see the extender's /explain"
_PIECE = re.compile(r"(\d+)/\d+ ([^\s,]+)")


def words_of(reason: str) -> list[str]:
    """The reason words of a text, without the numbers of cards."""
    return [word for _, word in _PIECE.findall(reason)] or [reason]


def _words(reason: str) -> str:
    return ", ".join(words_of(reason))


def _main_word(reason: str) -> str:
    """What most cards say."""
    pieces = _PIECE.findall(reason)
    return str(max(pieces, key=lambda piece: int(piece[0]))[1]) if pieces else reason


def few(reasons: Mapping[str, str], limit: int = TEXTS) -> dict[str, str]:
    """The same reasons by node in at most `limit` texts, as precise as that allows.

    First without the numbers of cards, then what most cards say, then the rarest as one.
    """
    shorten: Callable[[str], str]
    texts = dict(reasons)
    for shorten in (str, _words, _main_word):
        known = {reason: shorten(reason) for reason in set(reasons.values())}
        texts = {node: known[reason] for node, reason in reasons.items()}
        if len(set(known.values())) <= limit:
            return texts
    frequent = {text for text, _ in Counter(texts.values()).most_common(limit - 1)}
    return {node: text if text in frequent else REST for node, text in texts.items()}
