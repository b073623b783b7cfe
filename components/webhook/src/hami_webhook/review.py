"""AdmissionReview: reading the API server's question, writing the answer."""

import base64
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import jsonpatch
import msgspec

from hami_webhook.mutate import Json, mutate
from hami_webhook.rules import Rules
from hami_webhook.validate import validate
from hamikit.objects import Pod

VERSIONS = ("admission.k8s.io/v1", "admission.k8s.io/v1beta1")
MAX_FAULTS = 10


class Outcome(Enum):
    """What became of a question."""

    ALLOWED = "allowed"
    PATCHED = "patched"
    REFUSED = "refused"
    ERRORED = "errored"


@dataclass(frozen=True, slots=True)
class Question:
    """One question: the object as it came and, if it is a new pod, what we read of it."""

    version: str
    uid: str
    name: str
    raw: Json
    pod: Pod | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Our answer; `patch` is a JSON patch, `code` an HTTP status for the user."""

    outcome: Outcome
    message: str = ""
    code: int = 200
    patch: list[Json] = field(default_factory=list)


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
        review = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ReviewError(f"body is not JSON: {error}; send an AdmissionReview") from error
    request = review.get("request") if isinstance(review, dict) else None
    if not isinstance(request, dict):
        raise ReviewError("body has no request; send an AdmissionReview")
    version, uid = review.get("apiVersion"), str(request.get("uid", ""))
    if version not in VERSIONS:
        known = ", ".join(VERSIONS)
        raise ReviewError(f"apiVersion {version!r} is not known; send one of {known}", uid)
    raw: Json | None = request.get("object")
    if not _creates_pod(request):
        return Question(version, uid, "", {}, None)
    if raw is None:
        raise ReviewError("request.object is missing; send the pod", uid, version)
    try:
        pod = msgspec.convert(raw, Pod)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ReviewError(f"request.object is not a pod: {error}", uid, version) from error
    return Question(version, uid, _name(request, raw), raw, pod)


def _name(request: Json, raw: Json) -> str:
    """Namespace and name for the log; a controller's pod has only the start of a name yet."""
    name = request.get("name") or (raw.get("metadata") or {}).get("generateName", "")
    return f"{request.get('namespace', '')}/{name}"


def _creates_pod(request: Json) -> bool:
    kind = request.get("kind")
    return (
        (not isinstance(kind, dict) or kind.get("kind", "Pod") == "Pod")
        and not request.get("subResource")
        and request.get("operation", "CREATE") == "CREATE"
    )


def decide(question: Question, rules: Rules) -> Answer:
    """Refuse, complete or leave alone; the order is HAMi v2.10's."""
    pod = question.pod
    if pod is None:
        return Answer(Outcome.ALLOWED, "not the creation of a pod")
    if not rules.concerns(pod.spec.scheduler_name):
        return Answer(Outcome.ALLOWED, "pod already has different scheduler assigned")
    faults = validate(pod, rules)
    if faults:
        return Answer(Outcome.REFUSED, _text(faults), 403)
    patch: list[Json] = jsonpatch.make_patch(question.raw, mutate(question.raw, rules)).patch
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
        response["patch"] = base64.b64encode(msgspec.json.encode(answer.patch)).decode()
    if answer.message or not allowed:
        response["status"] = {"code": answer.code, "message": answer.message}
    if answer.outcome is Outcome.REFUSED:
        response["status"]["reason"] = "Forbidden"
    review = {"apiVersion": version, "kind": "AdmissionReview", "response": response}
    return msgspec.json.encode(review)
