"""What in a pod cannot be right, all of it at once."""

from collections.abc import Iterator

from hami_webhook.rules import Rules
from hamikit import names
from hamikit.codec import split_list
from hamikit.devices import DeviceFamily
from hamikit.fill import Wish, Wishes, is_zero, wishes_of
from hamikit.objects import Pod
from hamikit.quantity import QuantityError, parse_integer
from hamikit.shape import INT32_MAX, Quantities, RequestError, parse_container
from hamikit.weights import WeightsError, parse_weights

NODE_POLICIES = ("binpack", "spread")
GPU_POLICIES = ("binpack", "spread", "numa", "mutex", "topology-aware")


def validate(pod: Pod, rules: Rules, wishes: Wishes | None = None) -> list[str]:
    """Every fault of a pod, one sentence each; none for a pod that asks for no device.

    Quantities that cannot be right are faults even where the count is 0. `wishes` are the pod's,
    from whoever has them already.
    """
    if not pod.spec.containers:
        return ["pod has no containers"]
    wishes = wishes_of(pod, rules.families) if wishes is None else wishes
    faults: list[str] = []
    device = False
    for container, found in wishes:
        for wish in found:
            faults += _container(container.name, wish)
            device = device or wish.device
    if device:
        faults += _pod(pod, rules)
        if pod.metadata.annotations:
            faults += _annotations(pod.metadata.annotations)
    return faults


def _container(name: str, wish: Wish) -> Iterator[str]:
    try:
        parse_container(name, wish.named, {}, wish.family, soft=wish.soft)
    except RequestError as error:
        yield from map(str, error.faults)
    yield from _priority(name, wish.named, wish.family)
    if not wish.device:
        yield from _without_device(name, wish.named, wish.family)


def _without_device(container: str, named: Quantities, family: DeviceFamily) -> Iterator[str]:
    """Shares of no device: such a pod would wait for a resource that no node has."""
    shares = sorted(name for name, value in named.items() if not is_zero(value))
    if shares:
        yield (
            f"container {container!r}: {', '.join(shares)} given, but {family.count} is "
            f"{named.get(family.count, 'missing')}; "
            f"ask for {family.count}: 1 or more, or leave the others out"
        )


def _priority(container: str, named: Quantities, family: DeviceFamily) -> Iterator[str]:
    if family.priority not in named:
        return
    try:
        fine = 0 <= parse_integer(named[family.priority]) <= INT32_MAX
    except QuantityError:
        fine = False
    if not fine:
        yield (
            f"container {container!r}: {family.priority} is {str(named[family.priority])!r}, but "
            "it must be a whole number; write 0 for high or 1 for low"
        )


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
