"""Allocate by HAMi's lock protocol: whose turn it is, the answer, and the turn passed on."""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from hami_device_plugin import lock
from hami_device_plugin.api.deviceplugin_pb2 import ContainerAllocateResponse
from hami_device_plugin.lock import LockError, Turn
from hamikit import names
from hamikit.cluster import ApiError, Unreachable
from hamikit.objects import Node, Pod

log = structlog.get_logger()

T = TypeVar("T")
CONFLICT, NOT_FOUND = 409, 404
TRIES, FIRST_PAUSE_S, JITTER = 5, 0.1, 0.5

_FOR_GOOD = (names.BIND_SUCCESS, names.BIND_FAILED)


class LockApi(Protocol):
    """What we need of hamikit.cluster.Api."""

    def get(self, path: str, kind: type[T], query: dict[str, str | int] | None = None) -> T:
        """GET and decode."""

    def patch(self, path: str, body: Any) -> bytes:
        """JSON merge patch."""


class Spells(Protocol):
    """Answers for one container of a pod; LockError when there is no answer."""

    def __call__(self, pod: Pod, turn: Turn, ids: Sequence[str]) -> ContainerAllocateResponse:
        """The pod, the container's turn, the ids that kubelet chose."""


class _PodList(msgspec.Struct):
    items: list[Pod] = []


class Lockstep:
    """One Allocate at a time; every request to the API server has a time limit."""

    def __init__(
        self,
        api: LockApi,
        node: str,
        spell: Spells,
        *,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._api, self._node, self._spell = api, node, spell
        self._sleep, self._jitter = sleep, jitter

    def allocate(self, requests: Sequence[Sequence[str]]) -> list[ContainerAllocateResponse]:
        """The answers for these containers, in order; each is a list of kubelet's ids.

        Raises:
            LockError: kubelet is to fail the pod.
        """
        if not all(requests):
            raise LockError("kubelet asks for a container with no ids")
        pod = self.pending(len(requests[0]))
        try:
            answers, last = self._answers(pod, requests)
        except LockError as error:
            log.warning("allocation failed", pod=pod.key, error=str(error))
            self._end(pod, names.BIND_FAILED)
            raise
        if last:
            self._release(pod)
        return answers

    def _answers(
        self, pod: Pod, requests: Iterable[Sequence[str]]
    ) -> tuple[list[ContainerAllocateResponse], bool]:
        answers, last = [], False
        text = pod.metadata.annotations.get(names.POD_DEVICES_TO_ALLOCATE, "")
        for ids in requests:
            turn = lock.turn(text)
            if len(turn.devices) != len(ids):
                raise LockError(
                    f"device number not matched: kubelet has {len(ids)} ids for container "
                    f"{turn.index} of pod {pod.key}, which was granted {len(turn.devices)} devices"
                )
            answers.append(self._spell(pod, turn, ids))
            text, last = turn.rest, turn.last
        changes = {names.POD_DEVICES_TO_ALLOCATE: text}
        if last:
            changes[names.POD_BIND_PHASE] = names.BIND_SUCCESS
        try:
            self._annotate(pod, changes)
        except (ApiError, Unreachable) as error:
            raise LockError(f"pod {pod.key} cannot be told what it got: {error}") from error
        return answers, last

    def pending(self, count: int) -> Pod:
        """The pod whose turn it is; without a lock, one whose next container has so many devices.

        Raises:
            LockError: there is none, or the API server does not say.
        """
        try:
            value = self._node_now().metadata.annotations.get(names.NODE_LOCK)
            owner = None if value is None else lock.owner(value)
            pod = self._oldest(count) if owner is None else self._owners(owner)
        except (ApiError, Unreachable) as error:
            raise LockError(f"no binding pod found on node {self._node}: {error}") from error
        if pod is None:
            raise LockError(f"no binding pod found on node {self._node}")
        return pod

    def _owners(self, owner: lock.Owner) -> Pod | None:
        try:
            pod = self._api.get(f"/api/v1/namespaces/{owner.namespace}/pods/{owner.name}", Pod)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            # Nobody else knows that this allocation is over.
            metadata = msgspec.structs.replace(
                Pod().metadata, namespace=owner.namespace, name=owner.name
            )
            self._release(Pod(metadata=metadata))
            return None
        phase = pod.metadata.annotations.get(names.POD_BIND_PHASE)
        # One that is not bound yet kubelet cannot know: it asks for an earlier one, once more.
        here = pod.spec.node_name == self._node
        if not here or pod.terminal or phase in _FOR_GOOD:
            raise LockError(
                f"the node's lock is of pod {pod.key}, which is on node {pod.spec.node_name!r} in "
                f"phase {pod.status.phase} ({names.POD_BIND_PHASE}={phase!r}): not its turn"
            )
        return pod

    def _oldest(self, count: int) -> Pod | None:
        """Older schedulers lock without saying for whom."""
        query: dict[str, str | int] = {"fieldSelector": f"spec.nodeName={self._node}"}
        pods = self._api.get("/api/v1/pods", _PodList, query).items
        fitting = [p for p in pods if lock.waits(p, self._node) and _wants(p, count)]
        return min(fitting, key=_bound_at, default=None)

    def _annotate(self, pod: Pod, changes: dict[str, str]) -> None:
        where = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}"
        # With its UID: another pod of the same name has nothing to do with this.
        self._api.patch(where, {"metadata": {"uid": pod.metadata.uid, "annotations": changes}})

    def _end(self, pod: Pod, phase: str) -> None:
        """The allocation is over; the phase first, so that a lock that stays is seen to be old."""
        try:
            self._annotate(pod, {names.POD_BIND_PHASE: phase})
        except (ApiError, Unreachable) as error:
            log.warning("pod not told", pod=pod.key, phase=phase, error=str(error))
        self._release(pod)

    def _release(self, pod: Pod) -> None:
        """Take the lock off if it is this pod's; schedulers take over one that stays."""
        pause = FIRST_PAUSE_S
        for _ in range(TRIES):
            try:
                if self._released(pod):
                    return
            except (ApiError, Unreachable) as error:
                log.warning("lock not released", pod=pod.key, error=str(error))
            self._sleep(pause * (1 + JITTER * self._jitter()))
            pause *= 2

    def _released(self, pod: Pod) -> bool:
        node = self._node_now()
        value = node.metadata.annotations.get(names.NODE_LOCK)
        if value is None or not lock.is_of(value, pod):
            return True
        metadata = {
            "resourceVersion": node.metadata.resource_version,
            "annotations": {names.NODE_LOCK: None},
        }
        try:
            self._api.patch(f"/api/v1/nodes/{self._node}", {"metadata": metadata})
        except ApiError as error:
            if error.status != CONFLICT:
                raise
            return False
        return True

    def _node_now(self) -> Node:
        return self._api.get(f"/api/v1/nodes/{self._node}", Node)


def _wants(pod: Pod, count: int) -> bool:
    try:
        text = pod.metadata.annotations.get(names.POD_DEVICES_TO_ALLOCATE, "")
        return len(lock.turn(text).devices) == count
    except LockError:
        return False


def _bound_at(pod: Pod) -> tuple[int, str]:
    text = pod.metadata.annotations.get(names.POD_BIND_TIME, "")
    return (int(text) if text.isdecimal() else 0, pod.key)
