"""What a namespace's quotas say to a pod that alone asks for more than they allow."""

from collections.abc import Iterator, Sequence

from hami_webhook.asked import Container, Pod
from hami_webhook.blocks import Asked, asked_of
from hami_webhook.rules import Rules
from hamikit.devices import DeviceFamily
from hamikit.fill import Wish
from hamikit.footprint import NOTHING, Share, footprint
from hamikit.quotas import PREFIX, Limits
from hamikit.shape import RequestError, Role, parse_container, role_of


def excesses(
    pod: Pod, rules: Rules, quotas: Sequence[Limits], asked: Asked | None = None
) -> Iterator[str]:
    """A sentence for each quota that the pod exceeds even in an empty namespace."""
    if not quotas:
        return
    asked = asked_of(pod, rules) if asked is None else asked
    for family in rules.families:
        need = needed(pod, family, asked)
        amounts = (
            (family.memory, need.memory_mib, max(family.memory_factor, 1)),
            (family.cores, need.cores, 1),
        )
        for quota in quotas:
            for name, amount, factor in amounts:
                if name in quota.limits and amount > quota.limits[name] * factor:
                    yield (
                        f"exceeding resource quota: {quota.quota} allows {PREFIX}{name}: "
                        f"{quota.limits[name]} in the whole namespace, and this pod alone asks "
                        f"for {-(-amount // factor)}; ask for less, or have the quota raised"
                    )


def needed(pod: Pod, family: DeviceFamily, asked: Asked) -> Share:
    """What a pod's containers take of a family at their worst moment, over all cards together.

    Shares of a card whose size is not known yet (a percentage, a whole card) count as no memory;
    the extender prices them on the node.
    """
    inits = len(pod.init_containers)
    shares = [
        (role_of(container.restart_policy) if index < inits else Role.APP, {"": share})
        for index, (container, block) in enumerate(asked)
        for wish in block.wishes
        if wish.family is family and (share := _share(container, wish)) is not None
    ]
    return footprint(shares).get("", NOTHING)


def _share(container: Container, wish: Wish) -> Share | None:
    try:
        request = parse_container(container.name, wish.complete, {}, wish.family, soft=wish.soft)
    except RequestError:
        return None  # it is refused for that already
    if request is None:
        return None
    return Share(0, request.count * request.memory_mib, request.count * request.cores)
