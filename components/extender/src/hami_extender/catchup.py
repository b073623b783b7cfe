"""Whether our view has every grant that the API server holds at this moment."""

from typing import Any, Protocol

import msgspec
import structlog

from hami_extender.snapshot import Snapshot
from hamikit.cluster import ApiError, Unreachable
from hamikit.objects import ListMeta, Pod

log = structlog.get_logger()

PAGE = 500


class ListApi(Protocol):
    """What we need of the API server."""

    def request(self, method: str, path: str, *, query: dict[str, str | int]) -> bytes:
        """Send a request; raises ApiError, Unreachable."""


class _Pods(msgspec.Struct):
    metadata: ListMeta = ListMeta()
    items: list[Pod] = []


_DECODER = msgspec.json.Decoder(_Pods)


class CatchUp:
    """Lists the device pods as the quorum has them, and compares."""

    def __init__(self, snapshot: Snapshot, api: ListApi, query: dict[str, str | int]) -> None:
        self._snapshot, self._api, self._query = snapshot, api, query

    def done(self) -> bool:
        """Whether the watch has shown every bound pod of a fresh list."""
        try:
            bound = [pod for pod in self._list() if pod.spec.node_name and not pod.terminal]
        except (ApiError, Unreachable, msgspec.MsgspecError) as error:
            log.warning("the list of pods to catch up with failed", error=str(error))
            return False
        with self._snapshot.lock:
            known = self._snapshot.pods
            return all(
                pod.metadata.uid in known and known[pod.metadata.uid].spec.node_name
                for pod in bound
            )

    def _list(self) -> list[Pod]:
        pods: list[Pod] = []
        query: dict[str, Any] = {**self._query, "limit": PAGE}
        while True:
            page = _DECODER.decode(self._api.request("GET", "/api/v1/pods", query=query))
            pods += page.items
            if not page.metadata.continue_:
                return pods
            query["continue"] = page.metadata.continue_
