"""What containers ask for by their blocks of resources, each block worked out once."""

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.json import Decoder

from hami_webhook.asked import Container, Pod
from hami_webhook.rules import Rules
from hamikit.devices import DeviceFamily
from hamikit.fill import Wish, is_zero, wish
from hamikit.objects import Resources
from hamikit.quantity import QuantityError, parse_integer
from hamikit.selectors import soft_wanted
from hamikit.shape import INT32_MAX, Quantities, RequestError, parse_container

# Blocks that are kept for each set of rules, and the longest of them: 1 MiB at most. A cluster has
# few, as most pods come from a template.
KEPT = 1024
KEPT_BYTES = 1024


class Block(Struct, frozen=True):
    """What a block of resources asks of the families; `sound` when nothing in it is a fault."""

    resources: Resources | None
    wishes: tuple[Wish, ...]
    sound: bool


Asked = Sequence[tuple[Container, Block]]

_decode = Decoder(Resources | None).decode


def asked_of(pod: Pod, rules: Rules) -> Asked:
    """Each container of a pod, init containers first, with what it asks.

    Raises:
        msgspec.ValidationError: resources that are none.
    """
    annotations = pod.metadata.annotations
    soft = tuple([soft_wanted(annotations, family) for family in rules.families])
    asked = []
    for container in pod.all_containers:
        key = (soft, bytes(container.block))
        block = rules.known.get(key)
        asked.append((container, _learned(*key, rules) if block is None else block))
    return asked


def _learned(soft: tuple[bool, ...], text: bytes, rules: Rules) -> Block:
    resources = _decode(text) if text else None
    wishes: tuple[Wish, ...] = ()
    if resources is not None and (resources.limits or resources.requests):
        limits, requests = resources.limits or {}, resources.requests or {}
        each = zip(rules.families, soft, strict=True)
        found = [wish(limits, requests, family, soft=wanted) for family, wanted in each]
        wishes = tuple(one for one in found if one is not None)
    block = Block(resources, wishes, sound=not any(any(faults_of("", one)) for one in wishes))
    if len(text) <= KEPT_BYTES:
        if len(rules.known) >= KEPT:
            rules.known.clear()
        rules.known[soft, text] = block
    return block


def faults_of(container: str, wish: Wish) -> Iterator[str]:
    """What cannot be right in what a container asks of a family."""
    try:
        parse_container(container, wish.named, {}, wish.family, soft=wish.soft)
    except RequestError as error:
        yield from map(str, error.faults)
    yield from _priority(container, wish.named, wish.family)
    if not wish.device:
        yield from _without_device(container, wish.named, wish.family)


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


def _without_device(container: str, named: Quantities, family: DeviceFamily) -> Iterator[str]:
    """Shares of no device: such a pod would wait for a resource that no node has."""
    shares = sorted(name for name, value in named.items() if not is_zero(value))
    if shares:
        yield (
            f"container {container!r}: {', '.join(shares)} given, but {family.count} is "
            f"{named.get(family.count, 'missing')}; "
            f"ask for {family.count}: 1 or more, or leave the others out"
        )
