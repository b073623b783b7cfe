"""From the pod that a user wrote to the pod that the scheduler can place: the JSON patch between.

The operations are made from the few fields that we read. The rest of the pod is not even decoded,
so it cannot change.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from hami_webhook.rules import Rules
from hamikit import names
from hamikit.devices import DeviceFamily
from hamikit.fill import Wish, Wishes, wishes_of
from hamikit.objects import Container, EnvVar, Pod
from hamikit.quantity import parse_integer

Operation = dict[str, Any]
Variables = dict[str, str | None]
"""Name to the value that it is to have; None for a variable that must not be there."""


def mutate(pod: Pod, rules: Rules, wishes: Wishes | None = None) -> list[Operation]:
    """The operations that complete a pod, empty when nothing is to be done.

    The pod must have passed `validate`. A completed pod needs no operation. `wishes` are the pod's,
    from whoever has them already.
    """
    wishes = wishes_of(pod, rules.families) if wishes is None else wishes
    devices = [wish.family for _, found in wishes for wish in found if wish.device]
    if not devices and not any(family.overwrite_env for family in rules.families):
        return []
    vendors = {family.vendor for family in devices}
    operations: list[Operation] = []
    inits = len(pod.init_containers)
    for index, (container, found) in enumerate(wishes):
        path = _place(index, inits)
        mine = {wish.family.vendor: wish for wish in found if wish.device}
        for wish in mine.values():
            operations += _limits(f"{path}/resources", container, wish)
        variables: Variables = {}
        for family in rules.families:
            if family.vendor in mine:
                variables |= _with_device(mine[family.vendor])
            else:
                variables |= _without_device(container, family, beside=family.vendor in vendors)
        if variables:
            operations += _env(f"{path}/env", container.env or [], variables)
    return [*operations, *_route(pod, devices, rules)] if devices else operations


def _place(index: int, inits: int) -> str:
    """The JSON pointer of a container among all, of which the first `inits` are init containers."""
    if index < inits:
        return f"/spec/initContainers/{index}"
    return f"/spec/containers/{index - inits}"


def _limits(path: str, container: Container, wish: Wish) -> Iterator[Operation]:
    if not wish.added:
        return
    if container.resources is None:
        yield _add(path, {"limits": wish.added})
        return
    if not container.resources.limits:
        yield _add(f"{path}/limits", wish.added)
    else:
        for name, value in wish.added.items():
            yield _add(f"{path}/limits/{_escaped(name)}", value)
    for name, value in wish.added.items():
        # An extended resource's request has to equal its limit.
        if name in (container.resources.requests or {}) and str(wish.named[name]) != value:
            yield _replace(f"{path}/requests/{_escaped(name)}", value)


def _with_device(wish: Wish) -> Variables:
    """The variables of a container with a device."""
    family, wanted = wish.family, Variables()
    if family.visible_env:
        # A pod's own variable beats the one that the device plugin sets, and could name every card.
        wanted[family.visible_env] = None
    if family.priority in wish.named:
        wanted[names.ENV_TASK_PRIORITY] = str(parse_integer(wish.named[family.priority]))
    if family.core_policy not in ("", "default"):
        wanted[names.ENV_CORE_POLICY] = family.core_policy
    return wanted


def _without_device(container: Container, family: DeviceFamily, *, beside: bool) -> Variables:
    """The variables of a container that asks for none of a family's devices.

    `beside` one that does it must not name cards by itself. The variable is not removed but
    overwritten: many images bring `all` along.
    """
    if family.visible_env and (
        family.overwrite_env or (beside and _names_cards(container, family))
    ):
        return {family.visible_env: family.visible_none}
    return {}


_HIDES = (names.VISIBLE_NONE, names.VISIBLE_VOID)


def _names_cards(container: Container, family: DeviceFamily) -> bool:
    values = [entry.value for entry in container.env or [] if entry.name == family.visible_env]
    return any(value not in (family.visible_none, *_HIDES) for value in values)


def _env(path: str, env: list[EnvVar], wanted: Mapping[str, str | None]) -> list[Operation]:
    """Give each variable its value: once, where it stood first, or at the end."""
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
