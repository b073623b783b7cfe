"""How a daemon gets its API server: late, because the client is slow to import."""

import ctypes
import gc
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hami_device_plugin.cluster_side import ClusterSide
    from hami_device_plugin.daemon import Daemon


class Connects(Protocol):
    """Makes the API server's side; separate, because its client is slow to import."""

    def __call__(self, daemon: "Daemon") -> "ClusterSide":
        """For this daemon."""


def connect(daemon: "Daemon") -> "ClusterSide":
    """With the real API server."""
    # Takes 0.7 s to import, and kubelet is to be told first: until then pods cannot be admitted.
    from hami_device_plugin import cluster_side  # noqa: PLC0415

    # What was imported stays. A full collection that walks through all of it takes 70 ms, and it
    # would come in the middle of some container's start.
    gc.freeze()
    _give_back()
    side = cluster_side.connect(
        daemon.config.node_name,
        daemon.pods,
        daemon.access,
        daemon.cards.standing.stand,
    )
    side.follow(daemon.cards.truce)
    return side


def _give_back() -> None:
    """Give memory back that only the imports needed: a tenth of ours, where glibc can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
