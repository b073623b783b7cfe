"""Where a pod that does not exist would go now."""

from dataclasses import replace
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hami_extender.answers import NodeAnswer
from hami_extender.explain import NODES_TOLD
from hami_extender.selection import BAD_REQUEST
from hami_extender.snapshot import Snapshot
from hami_extender.survey import PodAnswer, Survey, devices_of, reasons_of
from hami_extender.wire import UNREADABLE
from hamikit.devices import DeviceFamily
from hamikit.fill import wish_of
from hamikit.objects import Container, Pod
from hamikit.selectors import soft_wanted
from hamikit.shape import RequestError

YAML_LIMIT = 256 * 1024
"""Bytes; YAML is read a hundred times slower than JSON."""
_TEMPLATES = (("spec", "template"), ("spec", "jobTemplate", "spec", "template"))


class ManifestError(ValueError):
    """What was sent is no pod; the text says why."""


def read_manifest(body: bytes) -> Pod:
    """A pod, or the pod template of a workload, as JSON or YAML.

    Raises:
        ManifestError: neither, or not a pod.
    """
    document = _document(body)
    if not isinstance(document, dict):
        raise ManifestError("the body is no object; send the manifest of one pod")
    kind = document.get("kind", "Pod")
    if kind != "Pod":
        document = _template(document, str(kind))
    try:
        pod = msgspec.convert(document, Pod)
    except msgspec.ValidationError as error:
        raise ManifestError(f"not a pod: {error}") from error
    if not pod.spec.containers:
        raise ManifestError("the pod has no containers; send a pod's whole manifest")
    meta = pod.metadata
    named = msgspec.structs.replace(
        meta, name=meta.name or "simulated", namespace=meta.namespace or "default", uid=""
    )
    return msgspec.structs.replace(pod, metadata=named)


def _document(body: bytes) -> Any:
    if body.lstrip()[:1] == b"{":
        try:
            return msgspec.json.decode(body)
        except UNREADABLE as error:
            raise ManifestError(f"the body is not JSON: {error}") from error
    if len(body) > YAML_LIMIT:
        raise ManifestError(f"YAML of more than {YAML_LIMIT} bytes is not read; send JSON")
    try:
        return YAML(typ="safe").load(body.decode())
    except (YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise ManifestError(f"the body is neither JSON nor YAML: {said}") from error


def _template(document: dict[str, Any], kind: str) -> Any:
    for path in _TEMPLATES:
        found: Any = document
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return {**found, "metadata": {**_named(document), **_dict(found.get("metadata"))}}
    raise ManifestError(f"a {kind} has no pod template; send a pod or a workload")


def _named(document: dict[str, Any]) -> dict[str, Any]:
    metadata = _dict(document.get("metadata"))
    return {key: metadata[key] for key in ("name", "namespace") if key in metadata}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class Simulator:
    """Asks every node about a pod that nobody created."""

    def __init__(self, snapshot: Snapshot, survey: Survey) -> None:
        self._snapshot, self._survey = snapshot, survey

    def simulate(self, pod: Pod, limit: int = NODES_TOLD) -> PodAnswer:
        """The placement, or the reasons of `limit` nodes in full."""
        for family in self._snapshot.families:
            pod = _filled(pod, family)
        try:
            question = self._survey.question(pod)
        except RequestError as error:
            return PodAnswer(pod.key, "invalid", f"{BAD_REQUEST}: {error}")
        if question is None:
            return PodAnswer(pod.key, "not ours", "asks for none of our devices")
        with self._snapshot.lock:
            fits, refusals = self._survey.split(question)
            best = fits[: max(limit, 1)]
            answer = PodAnswer(
                pod.key,
                "fits" if fits else "does not fit",
                f"{len(fits)} of {len(fits) + len(refusals)} nodes have room for its devices; "
                "kube-scheduler's own rules (taints, selectors, CPU, memory) are not looked at",
                fitting=len(fits),
                refused=len(refusals),
                reasons=reasons_of(refusals),
                quota=self._survey.quota(pod),
            )
            if not best:
                return replace(answer, nodes=self._survey.told(pod, question, refusals, limit))
            slots = self._survey.slots(question, best[0])
        return replace(
            answer,
            node=best[0],
            devices=devices_of(pod, slots),
            nodes=tuple(NodeAnswer(name, fits=True) for name in best),
        )


def _filled(pod: Pod, family: DeviceFamily) -> Pod:
    """The pod with the limits that admission would add."""

    def complete(container: Container) -> Container:
        wish = wish_of(container, family, soft=soft_wanted(pod.metadata.annotations, family))
        if wish is None or container.resources is None:
            return container
        limits = {**(container.resources.limits or {}), **wish.added}
        resources = msgspec.structs.replace(container.resources, limits=limits)
        return msgspec.structs.replace(container, resources=resources)

    spec = msgspec.structs.replace(
        pod.spec,
        containers=list(map(complete, pod.spec.containers)),
        init_containers=list(map(complete, pod.init_containers)),
    )
    return msgspec.structs.replace(pod, spec=spec)
