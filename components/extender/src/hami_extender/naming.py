"""Which nodes a pod names itself: they stay in the choice however good others are."""

from collections.abc import Iterator

from hamikit.objects import NodeRequirement, NodeTerm, Pod

HOSTNAME = "kubernetes.io/hostname"
NAME_FIELD = "metadata.name"


def named_nodes(pod: Pod) -> set[str]:
    """Nodes by name in the pod's selector, in its node affinity, or nominated by preemption."""
    names = {pod.status.nominated_node_name, (pod.spec.node_selector or {}).get(HOSTNAME, "")}
    for term in _terms(pod):
        names |= _values(term.match_fields, NAME_FIELD)
        names |= _values(term.match_expressions, HOSTNAME)
    return names - {""}


def _terms(pod: Pod) -> Iterator[NodeTerm]:
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    if affinity is None:
        return
    if affinity.required is not None:
        yield from affinity.required.node_selector_terms or []
    for preferred in affinity.preferred or []:
        if preferred.preference is not None:
            yield preferred.preference


def _values(requirements: list[NodeRequirement] | None, key: str) -> set[str]:
    return {
        value
        for requirement in requirements or []
        if requirement.key == key and requirement.operator == "In"
        for value in requirement.values or []
    }
