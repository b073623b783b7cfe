"""What the node's object says about its cards: patched when it differs, and only then."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import structlog

from hami_device_plugin.access import Access
from hami_device_plugin.stand import Stand
from hamikit import names
from hamikit.cluster import ApiError, Unreachable
from hamikit.codec import encode_register
from hamikit.objects import Node

log = structlog.get_logger()

T = TypeVar("T")
RETRY_S = 2.0
PAUSED_BY_US = "the device plugin of this node is being replaced"


class NodeApi(Protocol):
    """What we need of hamikit.cluster.Api."""

    def get(self, path: str, kind: type[T]) -> T:
        """GET and decode."""

    def patch(self, path: str, body: Any) -> bytes:
        """JSON merge patch."""


def wanted(stand: Stand, access: Access, paused: str | None) -> dict[str, str | None]:
    """The annotations that this node should have; None for one that should not be there."""
    if stand.fault is not None and not stand.devices:
        access = Access(reason=stand.fault)
    return {
        names.NODE_REGISTER: encode_register(stand.devices) if stand.devices else None,
        names.NODE_SCORE: stand.scores,
        names.NODE_BINDING: access.binding or None,
        names.NODE_BINDING_REASON: access.reason,
        names.NODE_CARD_ACCESS: access.way or None,
        names.NODE_PAUSED: paused,
    }


def difference(
    present: Mapping[str, str], desired: Mapping[str, str | None]
) -> dict[str, str | None]:
    """What has to be patched."""
    changed = {key: text for key, text in desired.items() if present.get(key) != text}
    # A pause that somebody else asked for is his to lift.
    if changed.get(names.NODE_PAUSED, "") is None and present[names.NODE_PAUSED] != PAUSED_BY_US:
        del changed[names.NODE_PAUSED]
    return changed


class Announcer:
    """Keeps the node's annotations as they should be, from a thread of its own.

    `stand` is None while the cards are not read: then the node keeps what it says.
    """

    def __init__(
        self,
        api: NodeApi,
        node: str,
        stand: Callable[[], Stand | None],
        access: Callable[[str], Access],
    ) -> None:
        self._api, self._path = api, f"/api/v1/nodes/{node}"
        self._stand, self._access = stand, access
        self._news = threading.Event()
        self._stopping = False
        self._said: str | None = "nothing announced yet"
        self.seen = Node()
        """The node as it was at the last look."""

    def news(self) -> None:
        """Look again at once."""
        self._news.set()

    def stop(self) -> None:
        """End after the present step."""
        self._stopping = True
        self._news.set()

    def missing(self) -> str | None:
        """What is missing until the node says what it should; None when it does."""
        return self._said

    def observe(self, node: Node) -> None:
        """The node has changed; what somebody else changed of ours is put right at once."""
        self.seen = node
        stand = self._stand()
        if stand is None or self._stopping:
            return
        access = self._access(node.status.node_info.container_runtime_version)
        if difference(node.metadata.annotations, wanted(stand, access, None)):
            self.news()

    def run(self) -> None:
        """Compare and patch, now and on news, until stopped; the node's watch brings news too."""
        while not self._stopping:
            self._news.clear()
            delay: float | None = None
            try:
                self.step()
            except (ApiError, Unreachable) as error:
                log.warning("node cannot be annotated", error=str(error))
                self._said = f"node: {error}"
                delay = RETRY_S
            self._news.wait(delay)

    def step(self, paused: str | None = None) -> None:
        """Compare once and patch what differs.

        Raises:
            ApiError, Unreachable: the API server said no, or nothing.
        """
        node = self.seen = self._api.get(self._path, Node)
        access = self._access(node.status.node_info.container_runtime_version)
        stand = self._stand()
        if stand is None:
            self._said = "the cards are not read yet"
            return
        changes = difference(node.metadata.annotations, wanted(stand, access, paused))
        if changes:
            self._api.patch(self._path, {"metadata": {"annotations": changes}})
            log.info("node annotated", changed=sorted(changes), cards=len(stand.devices))
        self._said = None
