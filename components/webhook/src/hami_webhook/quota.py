"""What a namespace's quotas say to a pod that alone asks for more than they allow."""

from collections.abc import Iterator, Sequence

from hami_webhook.rules import Rules
from hamikit.devices import DeviceFamily
from hamikit.fill import Wish, Wishes, wishes_of
from hamikit.footprint import NOTHING, Share, footprint
from hamikit.objects import Container, Pod
from hamikit.quotas import PREFIX, Limits
from hamikit.shape import RequestError, parse_container, roles_of


def excesses(
    pod: Pod, rules: Rules, quotas: Sequence[Limits], wishes: Wishes | None = None
) -> Iterator[str]:
    """A sentence for each quota that the pod exceeds even in an empty namespace."""
    if not quotas:
        return
    wishes = wishes_of(pod, rules.families) if wishes is None else wishes
    for family in rules.families:
        need = needed(pod, family, wishes)
        asked = (
            (family.memory, need.memory_mib, max(family.memory_factor, 1)),
            (family.cores, need.cores, 1),
        )
        for quota in quotas:
            for name, amount, factor in asked:
                if name in quota.limits and amount > quota.limits[name] * factor:
                    yield (
                        f"exceeding resource quota: {quota.quota} allows {PREFIX}{name}: "
                        f"{quota.limits[name]} in the whole namespace, and this pod alone asks "
                        f"for {-(-amount // factor)}; ask for less, or have the quota raised"
                    )


def needed(pod: Pod, family: DeviceFamily, wishes: Wishes) -> Share:
    """What a pod's containers take of a family at their worst moment, over all cards together.

    Shares of a card whose size is not known yet (a percentage, a whole card) count as no memory;
    the extender prices them on the node.
    """
    shares = [
        (role, {"": share})
        for role, (container, found) in zip(roles_of(pod), wishes, strict=True)
        for wish in found
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
