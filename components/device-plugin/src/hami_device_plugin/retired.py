"""Slots that are no more: listed a while longer, as unhealthy.

kubelet 1.34 ends with a nil pointer (devicemanager, allocateContainerResources) when an id that it
has just asked Allocate for is not on the newest list by the time of the answer.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

LINGER_S: Final = 60.0
"""Longer than any Allocate; what is unhealthy for so long kubelet asks for no more."""


class Retired:
    """Remembers what one listener was told."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: frozenset[str] = frozenset()
        self._since: dict[str, float] = {}

    def added(self, slots: Mapping[str, bool]) -> dict[str, bool]:
        """The slots that there are, and after them those that are no more since lately."""
        now = self._now()
        since = {slot: self._since.get(slot, now) for slot in self._told - slots.keys()}
        self._since = {slot: at for slot, at in since.items() if now - at < LINGER_S}
        self._told = frozenset(slots) | self._since.keys()
        return {**slots, **dict.fromkeys(sorted(self._since), False)}
