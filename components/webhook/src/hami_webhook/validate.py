"""What in a pod cannot be right, all of it at once."""

from collections.abc import Iterator

from hami_webhook.asked import Pod
from hami_webhook.blocks import Asked, asked_of, faults_of
from hami_webhook.rules import Rules
from hamikit import names
from hamikit.codec import split_list
from hamikit.weights import WeightsError, parse_weights

NODE_POLICIES = ("binpack", "spread")
GPU_POLICIES = ("binpack", "spread", "numa", "mutex", "topology-aware")


def validate(pod: Pod, rules: Rules, asked: Asked | None = None) -> list[str]:
    """Every fault of a pod, one sentence each; none for a pod that asks for no device.

    Quantities that cannot be right are faults even where the count is 0. `asked` is what its
    containers ask, from whoever knows it already.
    """
    if not pod.spec.containers:
        return ["pod has no containers"]
    asked = asked_of(pod, rules) if asked is None else asked
    faults: list[str] = []
    device = False
    for container, block in asked:
        for wish in block.wishes:
            device = device or wish.device
            if not block.sound:
                faults += faults_of(container.name, wish)
    if device:
        faults += _pod(pod, rules)
        if pod.metadata.annotations:
            faults += _annotations(pod.metadata.annotations)
    return faults


def _pod(pod: Pod, rules: Rules) -> Iterator[str]:
    for container in pod.all_containers:
        if container.security_context and container.security_context.privileged:
            yield (
                f"container {container.name} is privileged and would see every card of its node; "
                "leave out securityContext.privileged"
            )
    if rules.scheduler_name and pod.spec.node_name:
        yield (
            f"pod has node assigned: spec.nodeName is {pod.spec.node_name!r}, so nobody would "
            "choose its cards; use a nodeSelector or node affinity"
        )


def _annotations(annotations: dict[str, str]) -> Iterator[str]:
    granted = [name for name in names.GRANT_ANNOTATIONS if name in annotations]
    if granted:
        yield (
            f"annotations {', '.join(granted)} say what HAMi granted to the pod and are written "
            "by HAMi only; leave them out"
        )
    node = annotations.get(names.POD_NODE_POLICY, "")
    if node and node not in NODE_POLICIES:
        yield (
            f"annotation {names.POD_NODE_POLICY} is {node!r}, but no such policy is known; "
            f"write one of {', '.join(NODE_POLICIES)}"
        )
    gpu = annotations.get(names.POD_GPU_POLICY, "")
    if any(policy not in GPU_POLICIES for policy in split_list(gpu)):
        yield (
            f"annotation {names.POD_GPU_POLICY} is {gpu!r}, but no such policy is known; "
            f"write one or a comma list of {', '.join(GPU_POLICIES)}"
        )
    try:
        parse_weights(annotations.get(names.POD_SCORING_WEIGHTS, ""))
    except WeightsError as error:
        yield f"{error}; write slot=1,core=1,memory=1 with your own numbers, or leave it out"
