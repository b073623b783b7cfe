"""The way to the API server as the other parts use it: before it is there nothing is known."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from hamikit.objects import Node, Pod

if TYPE_CHECKING:
    from hami_device_plugin.allocate import Locked
    from hami_device_plugin.cluster_side import ClusterSide
    from hami_device_plugin.lockstep import Spells


class Uplink:
    """The API server's side once there is one; it comes late, for kubelet is told first."""

    def __init__(self) -> None:
        self._side: ClusterSide | None = None
        self._locked: Locked | None = None

    async def connect(self, make: Callable[[], "ClusterSide"], spell: "Spells") -> None:
        """Make the side, which takes a second, and have it watch and announce."""
        side = await asyncio.to_thread(make)
        self._locked = side.lockstep(spell)
        self._side = side
        side.start()

    def locked(self) -> "Locked | None":
        """HAMi's lock protocol; None while nobody can be asked whose turn it is."""
        return self._locked

    def missing(self) -> str | None:
        """What is missing until the view of the cluster is complete."""
        return "not connected" if self._side is None else self._side.missing()

    def seen(self) -> Node:
        """The node as the watch told it last."""
        return Node() if self._side is None else self._side.announcer.seen

    def node_now(self) -> Node | None:
        """The node straight from the API server; None when that does not answer."""
        return None if self._side is None else self._side.node_now()

    def fetch(self, uid: str) -> Pod | None:
        """A pod straight from the API server; None when it has none such, or does not answer."""
        return None if self._side is None else self._side.fetch(uid)

    def news(self) -> None:
        """The node's object is to say what there is now."""
        if self._side is not None:
            self._side.announcer.news()

    def warn(self, pod: Pod, reason: str, text: str) -> None:
        """A warning event on a pod."""
        if self._side is not None:
            self._side.events.warn(pod, reason, text)

    async def pause(self) -> None:
        """Have nothing bound to this node until a plugin is back."""
        if self._side is not None:
            await self._side.pause()

    async def stop(self) -> None:
        """End; what is being written is finished."""
        if self._side is not None:
            await self._side.stop()
