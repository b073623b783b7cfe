"""What is remembered of a pod once it has a node: there may be a hundred thousand of them."""

from functools import lru_cache
from sys import intern

from hamikit import names
from hamikit.objects import Container, Metadata, OwnerReference, Pod, PodSpec, PodStatus

_NONE: dict[str, str] = {}
_OWNERS: list[OwnerReference] = []


def kept(pod: Pod) -> Pod:
    """The pod as it is while it waits; without requests, annotations and the like once it is bound.

    Its grant is in the ledger by then.
    """
    if not pod.spec.node_name:
        return pod
    meta, phase = pod.metadata, pod.metadata.annotations.get(names.POD_BIND_PHASE)
    return Pod(
        metadata=Metadata(
            name=meta.name,
            namespace=intern(meta.namespace),
            uid=meta.uid,
            resource_version=meta.resource_version,
            annotations=_NONE if phase is None else _phase(phase),
            labels=_NONE,
            deletion_timestamp=meta.deletion_timestamp,
            owner_references=_OWNERS,
        ),
        spec=PodSpec(
            containers=_containers(tuple((c.name, None) for c in pod.spec.containers)),
            init_containers=_containers(
                tuple((c.name, c.restart_policy) for c in pod.init_containers)
            ),
            node_name=intern(pod.spec.node_name),
            priority=pod.spec.priority,
        ),
        status=PodStatus(phase=intern(pod.status.phase), start_time=pod.status.start_time),
    )


@lru_cache(maxsize=16)
def _phase(phase: str) -> dict[str, str]:
    return {names.POD_BIND_PHASE: phase}


@lru_cache(maxsize=4096)
def _containers(parts: tuple[tuple[str, str | None], ...]) -> list[Container]:
    """Pods of one workload share one list, which nobody changes."""
    return [Container(name=name, restart_policy=restart) for name, restart in parts]
