"""The node's object and its pods: what they say about MIG, and the few writes to them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, TypeVar

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
T = TypeVar("T")


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
        # (pod or nothing, annotation) -> why nobody can read it; told already.
        self._unreadable: dict[tuple[str, str], str] = {}

    def look(self) -> Sight:
        """What node and pods say now. Raises ApiError, Unreachable."""
        node = self._api.get(self._path, Node)
        noted = node.metadata.annotations
        claims = tuple(filter(None, map(self._claim, self._present())))
        self._seen = {claim.uid: self._seen.get(claim.uid, self._now()) for claim in claims}
        # What pods hold comes back from their records; what is left counts as made by hand.
        journal = self._read(decode_journal, noted, names.NODE_MIG_JOURNAL)
        blocked = self._read(decode_blocked, noted, names.NODE_MIG_BLOCKED)
        living = {claim.uid for claim in claims}
        return Sight(
            claims,
            journal or (),
            blocked or (),
            self._remains({entry.pod_uid for entry in journal or ()} - living),
            node.metadata.resource_version,
            spoilt=journal is None or blocked is None,
        )

    def _read(
        self, decode: Callable[[str], T], annotations: Mapping[str, str], key: str, pod: str = ""
    ) -> T | None:
        """What an annotation says, None when nobody can read it, which is told once."""
        try:
            found = decode(annotations.get(key, ""))
        except CodecError as error:
            if self._unreadable.get((pod, key)) != str(error):
                who = {"pod": pod} if pod else {}
                log.warning("annotation is unreadable", annotation=key, error=str(error), **who)
                self._unreadable[pod, key] = str(error)
            return None
        self._unreadable.pop((pod, key), None)
        return found

    def _present(self) -> list[Pod]:
        pods = {pod.metadata.uid: pod for pod in self._pods()}
        for uid, (before, after) in list(self._written.items()):
            if uid in pods and pods[uid].metadata.resource_version == before:
                pods[uid] = after
            else:
                del self._written[uid]
        present = {"", *(pod.key for pod in pods.values())}
        self._unreadable = {k: text for k, text in self._unreadable.items() if k[0] in present}
        return list(pods.values())

    def _claim(self, pod: Pod) -> Claim | None:
        text = pod.metadata.annotations.get(names.POD_MIG_ALLOCATIONS, "")
        if not text or pod.terminal:
            return None
        noted = pod.metadata.annotations
        record = names.POD_MIG_ALLOCATIONS
        allocations = self._read(decode_mig_allocations, noted, record, pod.key)
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
        grants = [
            self._read(decode_grant, pod.metadata.annotations, key, pod.key)
            for pod in self._pods()
            if not pod.terminal
            for key in (names.POD_DEVICES_ALLOCATED, names.POD_DEVICES_TO_ALLOCATE)
        ]
        if None in grants:
            return None
        return frozenset(d.uuid for grant in grants for slot in grant or () for d in slot)

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
