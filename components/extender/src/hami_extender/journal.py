"""Which nodes changed since somebody last looked."""

from collections.abc import Iterable

KEPT = 50_000
"""Changes remembered; whoever looks less often looks at everything."""


class Journal:
    """An ever growing list of changed nodes, of which the older half is forgotten in time."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._names: list[str] = []
        self._forgotten = 0

    @property
    def position(self) -> int:
        """Where the next change will stand."""
        return self._forgotten + len(self._names)

    def add(self, name: str) -> None:
        """A node has changed, appeared or gone."""
        self._names.append(name)
        if len(self._names) > self._kept:
            half = len(self._names) // 2
            del self._names[:half]
            self._forgotten += half

    def since(self, position: int) -> Iterable[str] | None:
        """The nodes that changed from there on, each once; None where that is forgotten."""
        if position < self._forgotten:
            return None
        return dict.fromkeys(self._names[position - self._forgotten :])
