"""Asks the API server who waits for a card's other mode, and for leave to change one."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import structlog

from hami_mig_manager.auto import Choice, Outlook, choose, given_up, open_to_change
from hami_mig_manager.demand import Site, WaitingList, demands
from hamikit import names
from hamikit.cluster import ApiError
from hamikit.objects import Lease

log = structlog.get_logger()

T = TypeVar("T")

LOOK_S: Final = 10.0
PACE_S: Final = 120
"""Between two changes in a cluster: the scheduler is to use the one before it asks for more."""
_LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{names.NAMESPACE}/leases"
_WAITING: Final = {
    "fieldSelector": "spec.nodeName=,status.phase=Pending",
    "labelSelector": f"{names.LABEL_DEVICE_POD}={names.LABEL_DEVICE_POD_VALUE}",
    # From the API server's memory; what is a little old is as good here.
    "resourceVersion": "0",
}
_NOT_FOUND, _CONFLICT = 404, 409


class ChooserApi(Protocol):
    """What we need of hamikit.cluster.Api; all raise ApiError, Unreachable."""

    def get(self, path: str, kind: type[T], query: Mapping[str, str | int] | None = None) -> T:
        """GET and decode."""

    def create(self, path: str, body: Any) -> bytes:
        """POST an object."""

    def patch(self, path: str, body: Any) -> bytes:
        """JSON merge patch."""


class Chooser:
    """Chooses modes for one node's cards; whoever holds the cluster's lease changes one card."""

    def __init__(self, api: ChooserApi, node: str) -> None:
        self._api, self._node = api, node
        self._looked = float("-inf")

    def __call__(self, outlook: Outlook) -> Mapping[str, Choice] | None:
        """The choices that are to stand now, None where they are as they should be.

        Raises:
            ApiError, Unreachable: nobody can be asked at present.
        """
        if gone := given_up(outlook):
            return {**outlook.choices, **gone}
        # A clock that was set back must not keep us from looking until the time comes again.
        soon = 0 <= outlook.now - self._looked < LOOK_S
        if outlook.changing or soon or not open_to_change(outlook):
            return None
        self._looked = outlook.now
        pods = self._api.get("/api/v1/pods", WaitingList, _WAITING)
        if not pods.items:
            return None
        site = self._api.get(f"/api/v1/nodes/{self._node}", Site)
        found = choose(outlook, demands(pods.items, site))
        if found is None or not self._leave(outlook.now):
            return None
        card, choice = found
        log.info("card is to change its mode", card=card, mode=choice.mode, pod=choice.pod)
        return {**outlook.choices, card: choice}

    def _leave(self, now: float) -> bool:
        """Whether this node may change a card: nobody in the cluster has for a while."""
        path = f"{_LEASES}/{names.LEASE_MIG_AUTO}"
        try:
            lease = self._api.get(path, Lease)
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
            return self._taken(_LEASES, self._lease(now, name=names.LEASE_MIG_AUTO))
        if _holds(lease, now):
            return False
        version = lease.metadata.resource_version
        return self._taken(path, self._lease(now, resourceVersion=version))

    def _lease(self, now: float, **metadata: str) -> dict[str, Any]:
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": self._node,
            "leaseDurationSeconds": PACE_S,
            "acquireTime": stamp,
            "renewTime": stamp,
        }
        kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        return {**kind, "metadata": metadata, "spec": spec}

    def _taken(self, path: str, lease: dict[str, Any]) -> bool:
        try:
            if path == _LEASES:
                self._api.create(path, lease)
            else:
                self._api.patch(path, lease)
        except ApiError as error:
            if error.status != _CONFLICT:
                raise
            log.info("another node was quicker to change a card")
            return False
        return True


def _holds(lease: Lease, now: float) -> bool:
    """Whether somebody's turn is not over; one that begins in a far future is nobody's."""
    try:
        since = datetime.fromisoformat(lease.spec.renew_time or "").timestamp()
    except ValueError:
        return False
    return abs(now - since) < PACE_S
