"""kube-scheduler's extender messages: capitalised keys without tags, read in any case.

Source: k8s.io/kube-scheduler/extender/v1 types.go.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from hamikit.objects import Pod

_PARTS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_POD = msgspec.json.Decoder(Pod)
_NAMES = msgspec.json.Decoder(list[str] | None)
_MAP = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_LIST = msgspec.json.Decoder(list[msgspec.Raw] | None)
_NUMBER = msgspec.json.Decoder(int | None)
_TEXT = msgspec.json.Decoder(str)
_NULL = b"null"
UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What decoding raises for bytes that are no message, nested ever deeper, or no text."""
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
"""Of a pod or namespace; it becomes part of a path of the API."""
_NOTHING = msgspec.Raw(_NULL)


@lru_cache(maxsize=8)
def _pod(raw: bytes) -> Pod:
    """Decode a pod; the same one for prioritize as for filter just before."""
    return _POD.decode(raw)


class WireError(ValueError):
    """A message that is not what kube-scheduler sends."""


@dataclass(frozen=True, slots=True)
class FilterArgs:
    """Which nodes are in question for a pod; `nodes` is the raw NodeList of an uncached caller."""

    pod: Pod
    node_names: list[str] | None = None
    nodes: msgspec.Raw | None = None


@dataclass(frozen=True, slots=True)
class BindArgs:
    """Which pod goes where."""

    name: str
    namespace: str
    uid: str
    node: str


@dataclass(frozen=True, slots=True)
class Victims:
    """Who would have to go from a node, by UID; `violations` are of disruption budgets."""

    uids: tuple[str, ...]
    violations: int = 0


@dataclass(frozen=True, slots=True)
class PreemptArgs:
    """On which nodes kube-scheduler would make room for a pod, and at whose cost."""

    pod: Pod
    nodes: dict[str, Victims]


@dataclass(frozen=True, slots=True)
class FilterResult:
    """The nodes that remain; the others, where none remains, with their reasons."""

    node_names: list[str] | None = None
    nodes: msgspec.Raw | None = None
    failed: dict[str, str] = field(default_factory=dict)
    unresolvable: dict[str, str] = field(default_factory=dict)
    error: str = ""

    def encode(self) -> bytes:
        """The message as kube-scheduler reads it."""
        return msgspec.json.encode(
            {
                "Nodes": self.nodes,
                "NodeNames": self.node_names,
                "FailedNodes": self.failed,
                "FailedAndUnresolvableNodes": self.unresolvable,
                "Error": self.error,
            }
        )


def _parts(body: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        return {key.lower(): value for key, value in _PARTS.decode(body).items()}
    except UNREADABLE as error:
        raise WireError(f"body is not a JSON object: {error}") from error


def decode_filter(body: bytes) -> FilterArgs:
    """Read ExtenderArgs.

    Raises:
        WireError: not such a message, or one without a pod.
    """
    parts = _parts(body)
    raw_pod = parts.get("pod", _NOTHING)
    if bytes(raw_pod) == _NULL:
        raise WireError("extender args missing pod")
    nodes = parts.get("nodes", _NOTHING)
    try:
        return FilterArgs(
            pod=_pod(bytes(raw_pod)),
            node_names=_NAMES.decode(parts.get("nodenames", _NOTHING)),
            nodes=None if bytes(nodes) == _NULL else nodes,
        )
    except UNREADABLE as error:
        raise WireError(f"extender args: {error}") from error


def decode_bind(body: bytes) -> BindArgs:
    """Read ExtenderBindingArgs.

    Raises:
        WireError: not such a message, or a field is missing.
    """
    parts = _parts(body)
    keys = ("podname", "podnamespace", "poduid", "node")
    try:
        values = [_TEXT.decode(parts[key]) for key in keys]
    except KeyError as error:
        raise WireError(
            f"binding args miss {error}; needed are PodName, PodNamespace, PodUID, Node"
        ) from error
    except UNREADABLE as error:
        raise WireError(f"binding args: {error}") from error
    for key, value in zip(("PodName", "PodNamespace"), values, strict=False):
        if not NAME.fullmatch(value):
            raise WireError(f"binding args: {key} {value[:300]!r} is no name")
    return BindArgs(*values)


def decode_preempt(body: bytes) -> PreemptArgs:
    """Read ExtenderPreemptionArgs, with UIDs or (to an uncached extender) with whole pods.

    Raises:
        WireError: not such a message, or one without a pod.
    """
    parts = _parts(body)
    if bytes(raw_pod := parts.get("pod", _NOTHING)) == _NULL:
        raise WireError("preemption args miss the pod")
    try:
        nodes = {
            name: _victims(raw, lambda pod: _TEXT.decode(_parts(pod).get("uid", _NOTHING)))
            for name, raw in _decoded_map(parts.get("nodenametometavictims", _NOTHING)).items()
        }
        nodes = nodes or {
            name: _victims(raw, lambda pod: _POD.decode(pod).metadata.uid)
            for name, raw in _decoded_map(parts.get("nodenametovictims", _NOTHING)).items()
        }
        return PreemptArgs(_POD.decode(raw_pod), nodes)
    except UNREADABLE as error:
        raise WireError(f"preemption args: {error}") from error


def _decoded_map(raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    return _MAP.decode(raw) or {}


def _victims(raw: msgspec.Raw, uid: Callable[[msgspec.Raw], str]) -> Victims:
    parts = _parts(raw)
    pods = _LIST.decode(parts.get("pods", _NOTHING)) or []
    number = _NUMBER.decode(parts.get("numpdbviolations", _NOTHING)) or 0
    return Victims(tuple(map(uid, pods)), number)


def encode_victims(nodes: dict[str, Victims]) -> bytes:
    """ExtenderPreemptionResult."""
    found = {
        name: {
            "Pods": [{"UID": uid} for uid in victims.uids],
            "NumPDBViolations": victims.violations,
        }
        for name, victims in nodes.items()
    }
    return msgspec.json.encode({"NodeNameToMetaVictims": found})


def encode_bind(error: str) -> bytes:
    """ExtenderBindingResult; an empty text is success."""
    return msgspec.json.encode({"Error": error})


def encode_priorities(scores: dict[str, int]) -> bytes:
    """HostPriorityList."""
    entries: list[dict[str, Any]] = [
        {"Host": host, "Score": score} for host, score in scores.items()
    ]
    return msgspec.json.encode(entries)
