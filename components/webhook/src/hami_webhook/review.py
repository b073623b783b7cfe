"""AdmissionReview: reading the API server's question, writing the answer."""

from binascii import b2a_base64
from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec

from hami_webhook.asked import Pod
from hami_webhook.blocks import asked_of
from hami_webhook.mutate import Operation, mutate
from hami_webhook.quota import excesses
from hami_webhook.rules import Rules
from hami_webhook.validate import validate
from hamikit.quotas import Limits

VERSIONS = ("admission.k8s.io/v1", "admission.k8s.io/v1beta1")
MAX_FAULTS = 10
_ABSENT = (b"", b"null")


class _Kind(msgspec.Struct):
    kind: str = "Pod"


class _Head(msgspec.Struct, rename="camel"):
    uid: str = ""
    kind: _Kind = msgspec.field(default_factory=_Kind)
    operation: str = "CREATE"
    sub_resource: str | None = None
    namespace: str | None = None
    name: str | None = None

    @property
    def creates_pod(self) -> bool:
        """Whether a pod is to be created, not anything else or a part of one."""
        return self.kind.kind == "Pod" and not self.sub_resource and self.operation == "CREATE"


class _Request(_Head):
    object: Pod | None = None


class _Review(msgspec.Struct, rename="camel"):
    request: _Request
    api_version: str = ""


class _RawRequest(_Head):
    object: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class _RawReview(msgspec.Struct, rename="camel"):
    request: _RawRequest
    api_version: str = ""


class _Generated(msgspec.Struct, rename="camel"):
    generate_name: str = ""


class _Unnamed(msgspec.Struct):
    metadata: _Generated = msgspec.field(default_factory=_Generated)


_decode_review = msgspec.json.Decoder(_Review).decode
_decode_raw = msgspec.json.Decoder(_RawReview).decode
_decode_pod = msgspec.json.Decoder(Pod).decode


class Outcome(Enum):
    """What became of a question."""

    ALLOWED = "allowed"
    PATCHED = "patched"
    REFUSED = "refused"
    ERRORED = "errored"


class Question(msgspec.Struct, frozen=True):
    """One question: what was asked, and what we read of the pod if a pod is to be created."""

    version: str
    request: _Head
    pod: Pod | None
    body: bytes = b""

    @property
    def uid(self) -> str:
        """By which the API server knows our answer."""
        return self.request.uid

    @property
    def namespace(self) -> str:
        """Where the pod is to live."""
        return self.request.namespace or ""

    @property
    def name(self) -> str:
        """Namespace and name for the log; a controller's pod has only the start of a name yet."""
        name = self.request.name
        if not name and self.pod is not None:
            raw = _decode_raw(self.body).request.object
            name = msgspec.json.decode(raw, type=_Unnamed).metadata.generate_name
        return f"{self.namespace}/{name or ''}"


class Answer(msgspec.Struct, frozen=True):
    """Our answer; `patch` is a JSON patch, `code` an HTTP status for the user."""

    outcome: Outcome
    message: str = ""
    code: int = 200
    patch: list[Operation] = msgspec.field(default_factory=list)


class ReviewError(ValueError):
    """A body that is no question we can answer; `uid` and `version` as far as they were read."""

    def __init__(self, message: str, uid: str = "", version: str = VERSIONS[0]) -> None:
        self.uid, self.version = uid, version
        super().__init__(message)


def decode(body: bytes) -> Question:
    """Read an AdmissionReview, v1 or v1beta1; anything but the creation of a pod has no `pod`.

    Raises:
        ReviewError: not JSON, not an AdmissionReview, or a pod that is none.
    """
    try:
        review = _decode_review(body)
    except (msgspec.DecodeError, RecursionError):
        return _decode_slowly(body)
    request, version = review.request, review.api_version
    if version in VERSIONS and request.creates_pod and request.object is not None:
        return Question(version, request, request.object, body)
    return _decode_slowly(body)


def _decode_slowly(body: bytes) -> Question:
    """Layer by layer: an object of another kind is not ours to judge, and a fault has its place."""
    try:
        review = _decode_raw(body)
    except msgspec.ValidationError as error:
        raise ReviewError(f"body is no AdmissionReview: {error}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ReviewError(f"body is not JSON: {error}; send an AdmissionReview") from error
    request, version = review.request, review.api_version
    if version not in VERSIONS:
        known = ", ".join(VERSIONS)
        raise ReviewError(f"apiVersion {version!r} is not known; send one of {known}", request.uid)
    if not request.creates_pod:
        return Question(version, request, None)
    if bytes(request.object) in _ABSENT:
        raise ReviewError("request.object is missing; send the pod", request.uid, version)
    try:
        return Question(version, request, _decode_pod(request.object), body)
    except (msgspec.ValidationError, RecursionError) as error:
        text = f"request.object is not a pod: {error}"
        raise ReviewError(text, request.uid, version) from error


def decide(question: Question, rules: Rules, quotas: Sequence[Limits] = ()) -> Answer:
    """Refuse, complete or leave alone; the order is HAMi v2.10's. `quotas` are the namespace's."""
    pod = question.pod
    if pod is None:
        return Answer(Outcome.ALLOWED, "not the creation of a pod")
    if not rules.concerns(pod.spec.scheduler_name):
        return Answer(Outcome.ALLOWED, "pod already has different scheduler assigned")
    try:
        asked = asked_of(pod, rules)
        faults = validate(pod, rules, asked)
        if quotas:
            faults += excesses(pod, rules, quotas, asked)
        if faults:
            return Answer(Outcome.REFUSED, _text(faults), 403)
        patch = mutate(pod, rules, asked)
    except msgspec.ValidationError as error:  # of what is read only where it is needed
        return Answer(Outcome.ERRORED, f"request.object is not a pod: {error}", 400)
    return Answer(Outcome.PATCHED, patch=patch) if patch else Answer(Outcome.ALLOWED)


def _text(faults: list[str]) -> str:
    more = len(faults) - MAX_FAULTS
    return "; ".join(faults[:MAX_FAULTS]) + (f"; and {more} more faults" if more > 0 else "")


def encode(answer: Answer, uid: str, version: str) -> bytes:
    """Write the AdmissionReview that answers the question `uid` in its own version."""
    allowed = answer.outcome in (Outcome.ALLOWED, Outcome.PATCHED)
    response: dict[str, Any] = {"uid": uid, "allowed": allowed}
    if answer.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = b2a_base64(msgspec.json.encode(answer.patch), newline=False).decode()
    if answer.message or not allowed:
        response["status"] = {"code": answer.code, "message": answer.message}
    if answer.outcome is Outcome.REFUSED:
        response["status"]["reason"] = "Forbidden"
    review = {"apiVersion": version, "kind": "AdmissionReview", "response": response}
    return msgspec.json.encode(review)
