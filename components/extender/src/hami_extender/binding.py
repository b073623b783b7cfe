"""The bind verb: choose devices on the present view, then one write that places pod and grant."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from hami_extender.flights import WRITE_S, Flight, Flights, Outcome, ReadApi, Refused, pod_path
from hami_extender.grants import grant_annotations
from hami_extender.placement import Placement, Refusal, Verdict, place
from hami_extender.question import Question
from hami_extender.selection import IN_FLIGHT, NO_LABEL
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Holding, Kind
from hami_extender.wire import BindArgs
from hamikit import names
from hamikit.cluster import ApiError, Unreachable
from hamikit.codec import Slots
from hamikit.objects import Pod
from hamikit.shape import RequestError

log = structlog.get_logger()

CLIENT_S = WRITE_S + 2.0


class WriteApi(ReadApi, Protocol):
    """What we need of the API server."""

    def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | int] | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> bytes:
        """Send a request; raises ApiError, Unreachable."""


class Tally(Protocol):
    """Where binds are counted."""

    def bind_refused(self) -> None:
        """The devices that the choice counted on are gone."""

    def bind_conflict(self) -> None:
        """The API server had another state of the pod than we."""

    def bind_unknown(self) -> None:
        """No answer came to a write."""


class Locks(Protocol):
    """HAMi's node lock, for nodes whose plugin does not learn late whose turn it is."""

    def take(self, node: str, pod: Pod) -> None:
        """Lock the node; raises Refused."""

    def label(self, pod: Pod, node: str) -> None:
        """Label the pod with its node; raises Refused."""


class Binder:
    """The bind verb; `missing` says what is missing until we may write."""

    def __init__(
        self,
        snapshot: Snapshot,
        api: WriteApi,
        flights: Flights,
        *,
        missing: Callable[[], str],
        gpu_policy: str,
        tally: Tally,
        locks: Locks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshot, self._api, self._missing = snapshot, api, missing
        self._gpu_policy, self._tally = gpu_policy, tally
        self._flights, self._locks, self._clock = flights, locks, clock

    def bind(self, args: BindArgs) -> str:
        """Place a pod; returns what is wrong, or an empty text once the Binding is written."""
        try:
            self._bind(args)
        except Refused as error:
            log.info(
                "bind refused",
                pod=f"{args.namespace}/{args.name}",
                node=args.node,
                error=str(error),
            )
            return str(error)
        return ""

    def _bind(self, args: BindArgs) -> None:
        if missing := self._missing():
            raise Refused(missing)
        pod = self._pod(args)
        try:
            question = self._snapshot.question(pod, self._gpu_policy)
        except RequestError as error:
            raise Refused(str(error)) from error
        if question is None:
            self._write_plain(pod, args.node)
            return
        if pod.metadata.labels.get(names.LABEL_DEVICE_POD) != names.LABEL_DEVICE_POD_VALUE:
            raise Refused(NO_LABEL)
        with self._snapshot.lock:
            slots = self._choose(pod, question, args.node)
            if slots is None:
                return
            flight = self._flights.start(pod, args.node)
            locked = self._by_lock(question, args.node)
        try:
            if locked:
                self._lock(flight)
            self._write(flight, slots, names.BIND_ALLOCATING if locked else names.BIND_SUCCESS)
        finally:
            self._flights.leave(flight)

    def _pod(self, args: BindArgs) -> Pod:
        with self._snapshot.lock:
            known = self._snapshot.pods.get(args.uid)
        # Of a bound pod too little is kept to know what it asks.
        if known is not None and not known.spec.node_name:
            return known
        try:
            pod = self._api.get(f"/api/v1/namespaces/{args.namespace}/pods/{args.name}", Pod)
        except (ApiError, Unreachable) as error:
            raise Refused(f"pod {args.namespace}/{args.name} cannot be read: {error}") from error
        if pod.metadata.uid != args.uid:
            raise Refused(
                f"pod {args.namespace}/{args.name} is another one now: uid {pod.metadata.uid}, "
                f"asked for {args.uid}"
            )
        return pod

    def _choose(self, pod: Pod, question: Question, node: str) -> Slots | None:
        """Devices for the pod, counted from now on; None if it has them on this node already."""
        ledger, uid = self._snapshot.ledger, pod.metadata.uid
        held = ledger.holdings.get(uid)
        flight = self._flights.get(uid)
        if held is not None and held.kind is not Kind.CLAIM:
            if flight is not None and flight.outcome is not Outcome.WRITTEN:
                raise Refused(IN_FLIGHT)
            if held.node == node:
                return None
            raise Refused(f"pod {pod.key} is bound to {held.node} already")
        self._snapshot.expire_claims()
        question = self._snapshot.limited(question, pod, sure=True)
        if slots := self._snapshot.redeem(uid, node, question):
            return slots
        self._snapshot.drop_claim(uid)
        verdict = self._verdict(question, node)
        if isinstance(verdict, Refusal):
            self._tally.bind_refused()
            raise Refused(f"{node}: {verdict.reason}; taken since the node was chosen, retrying")
        self._snapshot.hold(Kind.FLIGHT, pod, node, verdict.slots)
        return verdict.slots

    def _verdict(self, question: Question, node: str) -> Verdict:
        """Place beside other pods' claims if possible, else over them: a bind beats a claim."""
        ledger = self._snapshot.ledger
        verdict = place(ledger.nodes.get(node), question)
        claims = ledger.claims_on(node)
        if isinstance(verdict, Placement) or not claims:
            return verdict
        set_aside: list[tuple[str, Holding]] = []
        for uid in claims:
            claim = ledger.release(uid)
            if claim is not None:
                set_aside.append((uid, claim))
        verdict = place(ledger.nodes.get(node), question)
        if isinstance(verdict, Refusal):
            for uid, claim in set_aside:
                ledger.hold(uid, claim)
        return verdict

    def _by_lock(self, question: Question, node: str) -> bool:
        """Whether a plugin that the pod needs speaks HAMi's lock protocol."""
        state = self._snapshot.ledger.nodes.get(node)
        offers = state.facts.offers if state and state.facts else ()
        asked = {part.vendor for part in question.parts}
        return any(o.vendor in asked and o.binding == names.BINDING_LOCK for o in offers)

    def _lock(self, flight: Flight) -> None:
        """Take the node for this pod; NodeLocks itself takes the lock off when it is over."""
        try:
            self._locks.take(flight.node, flight.pod)
            self._locks.label(flight.pod, flight.node)
        except Refused:
            self._flights.failed(flight)
            raise

    # The one write.

    def _write(self, flight: Flight, slots: Slots, phase: str) -> None:
        seconds = int(self._clock())
        annotations = {
            **grant_annotations(self._snapshot.families, flight.pod, flight.node, slots, seconds),
            names.POD_BIND_PHASE: phase,
            names.POD_BIND_TIME: str(seconds),
        }
        body = binding_body(flight.pod, flight.node, annotations)
        if missing := self._missing():
            # The lease may have been lost while this thread waited for its turn.
            self._flights.failed(flight)
            raise Refused(missing)
        try:
            self._post(flight.pod, body)
        except ApiError as error:
            self._answered(flight, error)
        except Unreachable as error:
            self._tally.bind_unknown()
            self._flights.unanswered(flight, str(error))
        else:
            self._flights.written(flight)

    def _answered(self, flight: Flight, error: ApiError) -> None:
        """The server said no; Refused unless the pod is bound as asked all the same."""
        if error.status >= 500:
            # The API server gives up on a write that etcd may yet have taken.
            self._tally.bind_unknown()
            self._flights.unanswered(flight, str(error))
        elif error.status == 409:
            # Something is written already, perhaps by an attempt of ours nobody heard of.
            self._tally.bind_conflict()
            self._flights.find_out(flight, str(error))
        else:
            self._flights.failed(flight)
            raise Refused(f"binding refused: {error}") from error

    def _write_plain(self, pod: Pod, node: str) -> None:
        try:
            self._post(pod, binding_body(pod, node, {}))
        except (ApiError, Unreachable) as error:
            raise Refused(f"binding: {error}") from error

    def _post(self, pod: Pod, body: dict[str, Any]) -> None:
        path = f"{pod_path(pod)}/binding"
        query: dict[str, str | int] = {"timeout": f"{WRITE_S}s"}
        self._api.request("POST", path, query=query, body=body, timeout=CLIENT_S)


def binding_body(pod: Pod, node: str, annotations: dict[str, str]) -> dict[str, Any]:
    """A Binding that only this very pod accepts; its annotations are copied onto the pod."""
    meta = pod.metadata
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
            **({"annotations": annotations} if annotations else {}),
        },
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
