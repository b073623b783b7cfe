"""Which of a card's error events mean that the card is not fit for use (policy of HAMi v2.10)."""

from collections.abc import Mapping
from dataclasses import dataclass

# XIDs that a program causes, not the card (NVIDIA's XID catalogue).
APPLICATION = frozenset({13, 31, 43, 45, 68, 109})
ENV_DISABLE, ENV_ENABLE = "DP_DISABLE_HEALTHCHECKS", "DP_ENABLE_HEALTHCHECKS"
_ALL = ("all", "xids")


@dataclass(frozen=True, slots=True)
class XidPolicy:
    """XIDs that the operator named, to count or not to count; None stands for every XID."""

    enabled: frozenset[int | None] = frozenset()
    disabled: frozenset[int | None] = frozenset()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "XidPolicy":
        """From HAMi's two variables: comma lists of numbers, `all` or `xids`."""
        return cls(_listed(environ.get(ENV_ENABLE, "")), _listed(environ.get(ENV_DISABLE, "")))

    def counts(self, xid: int) -> bool:
        """Whether this XID makes a card unhealthy; an XID that is named goes before `all`."""
        if None in self.enabled or xid in self.enabled:
            return True
        if None in self.disabled or xid in self.disabled:
            return False
        return xid not in APPLICATION


def _listed(text: str) -> frozenset[int | None]:
    words = (word.strip().lower() for word in text.split(","))
    return frozenset(
        None if word in _ALL else int(word) for word in words if word in _ALL or word.isdecimal()
    )
