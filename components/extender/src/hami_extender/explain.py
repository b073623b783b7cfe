"""Why a pod is where it is, or is nowhere yet."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Protocol

from hami_extender.answers import NodeAnswer
from hami_extender.attempts import Attempts
from hami_extender.placement import Refusal
from hami_extender.question import Question
from hami_extender.selection import BAD_REQUEST, NO_LABEL
from hami_extender.snapshot import Snapshot
from hami_extender.survey import PodAnswer, Survey, devices_of, reasons_of
from hami_extender.usage import Holding, Kind
from hamikit import names
from hamikit.cluster import ApiError
from hamikit.objects import Pod
from hamikit.shape import RequestError

Split = Callable[[Question], tuple[list[str], dict[str, Refusal]]]
"""The nodes that fit, best first, and why the others do not."""
NODES_TOLD = 20
"""Nodes told in full unless more are asked for."""
PODS_TOLD = 200
LEFT_OUT = "kube-scheduler did not offer this node at its last attempt: its own rules left it out"
LEFT_OUT_REMEDY = "see kube-scheduler's event on the pod: taints, node selectors, CPU, memory"


class ReadApi(Protocol):
    """What we need of the API server."""

    def get(self, path: str, kind: type[Pod]) -> Pod:
        """Read an object; raises ApiError, Unreachable."""


class UnknownPod(LookupError):
    """There is no such pod; the text says so."""


class Explainer:
    """Answers questions about pods; `scheduler_name` is our kube-scheduler's."""

    def __init__(
        self,
        snapshot: Snapshot,
        api: ReadApi,
        survey: Survey,
        attempts: Attempts,
        *,
        scheduler_name: str = names.SCHEDULER_NAME,
    ) -> None:
        self._snapshot, self._api, self._survey = snapshot, api, survey
        self._attempts, self._scheduler_name = attempts, scheduler_name

    def pod(self, namespace: str, name: str, limit: int = NODES_TOLD) -> PodAnswer:
        """Explain one pod, `limit` nodes in full.

        Raises:
            UnknownPod: the API server has no such pod.
            ApiError, Unreachable: the API server cannot say.
        """
        with self._snapshot.lock:
            pods = list(self._snapshot.pods.values())
        same = [p for p in pods if p.metadata.name == name and p.metadata.namespace == namespace]
        if same:
            # A name may be in use again while the former pod still ends.
            return self._known(min(same, key=lambda p: bool(p.metadata.deletion_timestamp)), limit)
        try:
            pod = self._api.get(f"/api/v1/namespaces/{namespace}/pods/{name}", Pod)
        except ApiError as error:
            if error.status != 404:
                raise
            raise UnknownPod(f"there is no pod {namespace}/{name}") from error
        return self._unseen(pod, limit)

    def waiting(self, first: int = 0, limit: int = PODS_TOLD) -> list[PodAnswer]:
        """Some of the pods without a node, by name, each with its reasons only."""
        with self._snapshot.lock:
            pods = [pod for pod in self._snapshot.pods.values() if not pod.spec.node_name]
        pods.sort(key=lambda pod: pod.key)
        # Many wait for the same: what nodes say to that is asked once.
        split = cache(self._survey.split)
        return [self._known(pod, 0, split) for pod in pods[first : first + limit]]

    def _known(self, pod: Pod, limit: int, split: Split | None = None) -> PodAnswer:
        with self._snapshot.lock:
            held = self._snapshot.ledger.holdings.get(pod.metadata.uid)
            if held is not None:
                return _holds(pod, held)
            if pod.spec.node_name:
                text = f"runs on {pod.spec.node_name} without devices of ours"
                return replace(_said(pod, "not ours", text), node=pod.spec.node_name)
            return self._waiting(pod, limit, split or self._survey.split)

    def _unseen(self, pod: Pod, limit: int) -> PodAnswer:
        """A pod that no informer of ours shows."""
        if pod.terminal:
            return _said(pod, "finished", f"has ended ({pod.status.phase}) and holds no device")
        asked = self._asked(pod)
        if isinstance(asked, PodAnswer):
            return asked
        if pod.metadata.labels.get(names.LABEL_DEVICE_POD) != names.LABEL_DEVICE_POD_VALUE:
            text = (
                f"{NO_LABEL}: it asks for devices, but the webhook did not see it when it was "
                "created; delete it and create it again"
            )
            return _said(pod, "not ours", text)
        return self._known(pod, limit)

    def _asked(self, pod: Pod) -> Question | PodAnswer:
        """What the pod asks of nodes, or the answer where it asks nothing that can be."""
        try:
            question = self._survey.question(pod)
        except RequestError as error:
            return _said(pod, "invalid", f"{BAD_REQUEST}: {error}")
        return question or _said(pod, "not ours", "asks for none of our devices")

    def _waiting(self, pod: Pod, limit: int, split: Split) -> PodAnswer:
        """Ask all nodes. The lock is held."""
        scheduler = pod.spec.scheduler_name or self._scheduler_name
        if scheduler != self._scheduler_name:
            return _said(pod, "not ours", f"its spec.schedulerName is {scheduler!r}, not ours")
        question = self._asked(pod)
        if isinstance(question, PodAnswer):
            return question
        fits, refusals = split(question)
        last = self._attempts.last(pod.metadata.uid)
        left_out = set(last[0].left_out) if last else set()
        could = tuple(_open(name, left_out) for name in fits[:limit])
        return replace(
            _said(pod, "waiting", _why(len(fits), len(fits) + len(refusals), last is not None)),
            fitting=len(fits),
            refused=len(refusals),
            reasons=reasons_of(refusals),
            nodes=could + self._survey.told(pod, question, refusals, limit),
            quota=self._survey.quota(pod),
            last_attempt_s=round(last[1], 1) if last else None,
        )


def _said(pod: Pod, state: str, text: str) -> PodAnswer:
    return PodAnswer(pod.key, state, text, uid=pod.metadata.uid)


def _holds(pod: Pod, held: Holding) -> PodAnswer:
    said = {
        Kind.CLAIM: f"kube-scheduler is about to bind it to {held.node}",
        Kind.FLIGHT: f"is being bound to {held.node}",
        Kind.GRANT: f"is bound to {held.node}",
    }
    text = said[held.kind]
    if not held.readable:
        text += "; its grant cannot be read, so this node takes no pods until it is gone"
    if pod.metadata.annotations.get(names.POD_BIND_PHASE) == names.BIND_FAILED:
        text += "; the node's plugin could not hand its devices out"
    state = "placed" if held.kind is Kind.GRANT else "placing"
    return replace(_said(pod, state, text), node=held.node, devices=devices_of(pod, held.slots))


def _why(fitting: int, total: int, asked: bool) -> str:  # noqa: FBT001
    if not fitting:
        return f"none of {total} nodes has room for its devices"
    room = f"{fitting} of {total} nodes have room for its devices now"
    if asked:
        return f"{room}; kube-scheduler's own rules leave them out, or it is about to look again"
    return f"{room}; kube-scheduler has not been refused here, so it has not asked yet"


def _open(name: str, left_out: set[str]) -> NodeAnswer:
    if name in left_out:
        return NodeAnswer(name, fits=True, detail=LEFT_OUT, remedy=LEFT_OUT_REMEDY)
    return NodeAnswer(name, fits=True)
