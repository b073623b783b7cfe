"""From the pod that a user wrote to the pod that the scheduler can place: the JSON patch between.

The operations are made from the few fields that we read. The rest of the pod is not even decoded,
so it cannot change.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hami_webhook.asked import Container, Pod
from hami_webhook.blocks import Asked, asked_of
from hami_webhook.rules import Rules
from hamikit import names
from hamikit.devices import DeviceFamily
from hamikit.fill import Wish
from hamikit.objects import Resources
from hamikit.quantity import parse_integer

Operation = dict[str, Any]
Variables = dict[str, str | None]
"""Name to the value that it is to have; None for a variable that must not be there."""


def mutate(pod: Pod, rules: Rules, asked: Asked | None = None) -> list[Operation]:
    """The operations that complete a pod, empty when nothing is to be done.

    The pod must have passed `validate`. A completed pod needs no operation. `asked` is what its
    containers ask, from whoever knows it already.
    """
    asked = asked_of(pod, rules) if asked is None else asked
    devices = [wish.family for _, block in asked for wish in block.wishes if wish.device]
    vendors = [family.vendor for family in devices]
    hiding = [
        family
        for family in rules.families
        if family.visible_env and (family.overwrite_env or family.vendor in vendors)
    ]
    if not devices and not hiding:
        return []
    operations: list[Operation] = []
    inits = len(pod.init_containers)
    named = any(family.overwrite_env for family in hiding) or _may_name(asked, hiding)
    for index, (container, block) in enumerate(asked):
        if not (named or block.wishes):
            continue
        mine = [wish for wish in block.wishes if wish.device]
        variables: Variables = {}
        if named:
            variables |= _without_device(container, hiding, [wish.family.vendor for wish in mine])
        for wish in mine:
            operations += _limits(f"{_place(index, inits)}/resources", block.resources, wish)
            variables |= _with_device(wish, named=named)
        if variables:
            operations += _env(f"{_place(index, inits)}/env", container, variables)
    if devices:
        operations += _route(pod, devices, rules)
    return operations


def _may_name(asked: Asked, families: Sequence[DeviceFamily]) -> bool:
    """Whether any container's variables can be those by which cards are named; False is certain."""
    text = b"".join([container.env for container, _ in asked])
    # A letter may be written as an escape.
    return b"\\" in text or any(family.visible_env.encode() in text for family in families)


def _place(index: int, inits: int) -> str:
    """The JSON pointer of a container among all, of which the first `inits` are init containers."""
    if index < inits:
        return f"/spec/initContainers/{index}"
    return f"/spec/containers/{index - inits}"


def _limits(path: str, resources: Resources | None, wish: Wish) -> Iterator[Operation]:
    if not wish.added:
        return
    if resources is None:
        yield _add(path, {"limits": wish.added})
        return
    if not resources.limits:
        yield _add(f"{path}/limits", wish.added)
    else:
        for name, value in wish.added.items():
            yield _add(f"{path}/limits/{_escaped(name)}", value)
    for name, value in wish.added.items():
        # An extended resource's request has to equal its limit.
        if name in (resources.requests or {}) and str(wish.named[name]) != value:
            yield _replace(f"{path}/requests/{_escaped(name)}", value)


def _with_device(wish: Wish, *, named: bool) -> Variables:
    """The variables of a container with a device; `named`: a variable may name cards."""
    family, wanted = wish.family, Variables()
    if named and family.visible_env:
        # A pod's own variable beats the one that the device plugin sets, and could name every card.
        wanted[family.visible_env] = None
    if family.priority in wish.named:
        wanted[names.ENV_TASK_PRIORITY] = str(parse_integer(wish.named[family.priority]))
    if family.core_policy not in ("", "default"):
        wanted[names.ENV_CORE_POLICY] = family.core_policy
    return wanted


def _without_device(
    container: Container, hiding: Sequence[DeviceFamily], mine: Sequence[str]
) -> Variables:
    """The variables that hide the cards of all vendors that are not the container's own.

    Beside a container that asks for cards another must not name them by itself. The variable is
    not removed but overwritten: many images bring `all` along.
    """
    return {
        family.visible_env: family.visible_none
        for family in hiding
        if family.vendor not in mine and (family.overwrite_env or _names_cards(container, family))
    }


_HIDES = (names.VISIBLE_NONE, names.VISIBLE_VOID)


def _names_cards(container: Container, family: DeviceFamily) -> bool:
    values = [entry.value for entry in container.variables if entry.name == family.visible_env]
    return any(value not in (family.visible_none, *_HIDES) for value in values)


def _env(path: str, container: Container, wanted: Mapping[str, str | None]) -> list[Operation]:
    """Give each variable its value: once, where it stood first, or at the end."""
    env = container.variables
    found: list[Operation] = []
    seen: set[str] = set()
    for index, entry in enumerate(env):
        if entry.name not in wanted:
            continue
        value = wanted[entry.name]
        if value is None or entry.name in seen:
            found.append({"op": "remove", "path": f"{path}/{index}"})
        elif entry.value != value:
            found.append(_replace(f"{path}/{index}", _variable(entry.name, value)))
        seen.add(entry.name)
    found.reverse()  # what is removed shifts only what comes after it
    missing = [_variable(n, v) for n, v in wanted.items() if v is not None and n not in seen]
    if missing and not env:
        return [*found, _add(path, missing)]
    return [*found, *(_add(f"{path}/-", variable) for variable in missing)]


def _route(pod: Pod, devices: list[DeviceFamily], rules: Rules) -> Iterator[Operation]:
    """Send a device pod to our scheduler, mark it for our informers."""
    labels, spec = pod.metadata.labels, pod.spec
    if not labels:
        yield _add("/metadata/labels", {names.LABEL_DEVICE_POD: names.LABEL_DEVICE_POD_VALUE})
    elif labels.get(names.LABEL_DEVICE_POD) != names.LABEL_DEVICE_POD_VALUE:
        path = f"/metadata/labels/{_escaped(names.LABEL_DEVICE_POD)}"
        yield _add(path, names.LABEL_DEVICE_POD_VALUE)
    if rules.scheduler_name and spec.scheduler_name != rules.scheduler_name:
        yield _add("/spec/schedulerName", rules.scheduler_name)
    runtime_class = next((f.runtime_class for f in devices if f.runtime_class), "")
    if runtime_class and spec.runtime_class_name is None:
        yield _add("/spec/runtimeClassName", runtime_class)


def _variable(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


def _add(path: str, value: Any) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _replace(path: str, value: Any) -> Operation:
    return {"op": "replace", "path": path, "value": value}


def _escaped(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
