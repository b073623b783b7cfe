"""The node's object and its pods: what they say about MIG, and the few writes to them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

import msgspec
import structlog

from hami_mig_manager.apply import Sight
from hami_mig_manager.journal import Entry, decode_journal, encode_journal
from hami_mig_manager.state import Claim
from hamikit import names
from hamikit.cluster import Api, ApiError
from hamikit.codec import CodecError, decode_grant
from hamikit.events import Events
from hamikit.mig import (
    BlockedPlacement,
    MigAllocation,
    decode_blocked,
    decode_mig_allocations,
    encode_blocked,
)
from hamikit.objects import Node, Pod

log = structlog.get_logger()

EVENT: Final = "MigInstanceNotMade"
_NOT_FOUND, _BUDGET = 404, 429


class ClusterSide:
    """One node at the API server.

    `pods` are the node's, at least those that ask for cards; `remains` tells which of some pods
    still have containers here.
    """

    def __init__(
        self,
        api: Api,
        node: str,
        pods: Callable[[], Iterable[Pod]],
        remains: Callable[[Collection[str]], frozenset[str]],
        *,
        events: Events,
        now: Callable[[], float],
    ) -> None:
        self._api, self._path, self._events = api, f"/api/v1/nodes/{node}", events
        self._pods, self._remains, self._now = pods, remains, now
        # The watch takes a moment to tell what we wrote: UID -> version before, and the pod since.
        self._written: dict[str, tuple[str, Pod]] = {}
        self._seen: dict[str, float] = {}

    def look(self) -> Sight:
        """What node and pods say now. Raises ApiError, Unreachable."""
        node = self._api.get(self._path, Node)
        noted = node.metadata.annotations
        claims = tuple(filter(None, map(self._claim, self._present())))
        self._seen = {claim.uid: self._seen.get(claim.uid, self._now()) for claim in claims}
        journal = _journal(noted.get(names.NODE_MIG_JOURNAL, ""))
        living = {claim.uid for claim in claims}
        return Sight(
            claims,
            journal,
            _blocked(noted.get(names.NODE_MIG_BLOCKED, "")),
            self._remains({entry.pod_uid for entry in journal} - living),
            node.metadata.resource_version,
        )

    def _present(self) -> list[Pod]:
        pods = {pod.metadata.uid: pod for pod in self._pods()}
        for uid, (before, after) in list(self._written.items()):
            if uid in pods and pods[uid].metadata.resource_version == before:
                pods[uid] = after
            else:
                del self._written[uid]
        return list(pods.values())

    def _claim(self, pod: Pod) -> Claim | None:
        text = pod.metadata.annotations.get(names.POD_MIG_ALLOCATIONS, "")
        if not text or pod.terminal:
            return None
        allocations: tuple[MigAllocation, ...] | None = None
        try:
            allocations = decode_mig_allocations(text)
        except CodecError as error:
            log.warning("record of a pod is unreadable", pod=pod.key, error=str(error))
        uid = pod.metadata.uid
        return Claim(
            uid,
            pod.key,
            pod.metadata.resource_version,
            allocations,
            pod.metadata.deletion_timestamp is not None,
            _bound_at(pod, self._seen.get(uid, self._now())),
        )

    def write(
        self, before: Sight, journal: tuple[Entry, ...], blocked: tuple[BlockedPlacement, ...]
    ) -> None:
        """Put both on the node, unless it has changed since. Raises ApiError, Unreachable."""
        annotations = {
            names.NODE_MIG_JOURNAL: encode_journal(journal),
            names.NODE_MIG_BLOCKED: encode_blocked(blocked),
        }
        self.note(before.version, annotations)

    def annotations(self) -> tuple[Mapping[str, str], str]:
        """What stands on the node, and its version. Raises ApiError, Unreachable."""
        node = self._api.get(self._path, Node)
        return node.metadata.annotations, node.metadata.resource_version

    def note(self, version: str, annotations: Mapping[str, str | None]) -> None:
        """Put these on the node, unless it has changed. Raises ApiError, Unreachable."""
        metadata = {"resourceVersion": version, "annotations": annotations}
        self._api.patch(self._path, {"metadata": metadata})

    def held(self) -> frozenset[str] | None:
        """Cards that pods which have not ended were granted something of; None: cannot be told."""
        texts = [
            pod.metadata.annotations.get(key, "")
            for pod in self._pods()
            if not pod.terminal
            for key in (names.POD_DEVICES_ALLOCATED, names.POD_DEVICES_TO_ALLOCATE)
        ]
        try:
            slots = [slot for text in texts for slot in decode_grant(text)]
        except CodecError as error:
            log.warning("grant of a pod is unreadable", error=str(error))
            return None
        return frozenset(device.uuid for slot in slots for device in slot)

    def record(self, claim: Claim, allocations: tuple[MigAllocation, ...]) -> None:
        """Write the ids on the pod, unless it has changed. Raises ApiError, Unreachable."""
        metadata = {
            "uid": claim.uid,
            "resourceVersion": claim.version,
            "annotations": {
                names.POD_MIG_ALLOCATIONS: msgspec.json.encode(allocations).decode(),
            },
        }
        answer = self._api.patch(_pod_path(claim), {"metadata": metadata})
        after = msgspec.json.decode(answer, type=Pod)
        known = self._written.get(claim.uid, (claim.version,))
        self._written[claim.uid] = (known[0], after)

    def evict(self, claim: Claim, reason: str, text: str) -> None:
        """Tell the pod why, and have it placed anew. Raises ApiError, Unreachable."""
        told = f"{reason}: {text}; the pod is evicted to be placed anew"
        self._events.warn(_reference(claim), EVENT, told)
        namespace, name = claim.key.split("/")
        body: dict[str, Any] = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": claim.uid}},
        }
        try:
            self._api.create(f"{_pod_path(claim)}/eviction", body)
        except ApiError as error:
            if error.status not in (_NOT_FOUND, _BUDGET):
                raise
            log.warning("pod is not evicted", pod=claim.key, error=str(error))


def _journal(text: str) -> tuple[Entry, ...]:
    try:
        return decode_journal(text)
    except CodecError as error:
        # What pods hold comes back from their records; what is left counts as made by hand.
        log.warning("journal is lost", error=str(error))
        return ()


def _blocked(text: str) -> tuple[BlockedPlacement, ...]:
    try:
        return decode_blocked(text)
    except CodecError as error:
        log.warning("blocked placements are found out anew", error=str(error))
        return ()


def _bound_at(pod: Pod, seen: float) -> float:
    """When a pod was bound; not after we saw it, whatever the scheduler's clock says."""
    text = pod.metadata.annotations.get(names.POD_BIND_TIME, "")
    told = text.isascii() and text.isdigit() and len(text) < 12
    return min(float(text), seen) if told else seen


def _pod_path(claim: Claim) -> str:
    namespace, name = claim.key.split("/")
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


def _reference(claim: Claim) -> Pod:
    """As much of the pod as an event needs."""
    namespace, name = claim.key.split("/")
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": namespace, "uid": claim.uid}}, type=Pod
    )
