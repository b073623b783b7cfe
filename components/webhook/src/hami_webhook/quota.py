"""What a namespace's quotas say to a pod that alone asks for more than they allow."""

from collections.abc import Iterator, Sequence

from hami_webhook.rules import Rules
from hamikit.fill import wish_of
from hamikit.footprint import NOTHING, Share, footprint
from hamikit.objects import Pod
from hamikit.quotas import PREFIX, Limits
from hamikit.shape import RequestError, parse_container, roles_of


def excesses(pod: Pod, rules: Rules, quotas: Sequence[Limits]) -> Iterator[str]:
    """A sentence for each quota that the pod exceeds even in an empty namespace."""
    if not quotas:
        return
    family, need = rules.family, needed(pod, rules)
    asked = (
        (family.memory, need.memory_mib, max(family.memory_factor, 1)),
        (family.cores, need.cores, 1),
    )
    for quota in quotas:
        for name, amount, factor in asked:
            if name in quota.limits and amount > quota.limits[name] * factor:
                yield (
                    f"exceeding resource quota: {quota.quota} allows {PREFIX}{name}: "
                    f"{quota.limits[name]} in the whole namespace, and this pod alone asks for "
                    f"{-(-amount // factor)}; ask for less, or have the quota raised"
                )


def needed(pod: Pod, rules: Rules) -> Share:
    """What a pod's containers take at their worst moment, over all cards together.

    Shares of a card whose size is not known yet (a percentage, a whole card) count as no memory;
    the extender prices them on the node.
    """
    family = rules.family
    shares = []
    for role, container in zip(roles_of(pod), pod.all_containers, strict=True):
        wish = wish_of(container, family)
        try:
            request = parse_container(container.name, {**wish.named, **wish.added}, {}, family)
        except RequestError:
            continue  # it is refused for that already
        if request is not None:
            each = Share(0, request.count * request.memory_mib, request.count * request.cores)
            shares.append((role, {"": each}))
    return footprint(shares).get("", NOTHING)
