"""From the pod that a user wrote to the pod that the scheduler can place: the JSON patch between.

The operations are made from the few fields that we read. The rest of the pod is not even decoded,
so it cannot change.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from hami_webhook.rules import Rules
from hamikit import names
from hamikit.fill import Wish, wish_of
from hamikit.objects import Container, EnvVar, Pod
from hamikit.quantity import parse_integer

Operation = dict[str, Any]
Variables = Mapping[str, str | None]
"""Name to the value that it is to have; None for a variable that must not be there."""

_SEES_NOTHING = (names.VISIBLE_NONE, names.VISIBLE_VOID)


def mutate(pod: Pod, rules: Rules) -> list[Operation]:
    """The operations that complete a pod, empty when nothing is to be done.

    The pod must have passed `validate`. A completed pod needs no operation.
    """
    family = rules.family
    wishes = [wish_of(container, family) for container in pod.all_containers]
    device_pod = any(wish.device for wish in wishes)
    if not device_pod and not family.overwrite_env:
        return []
    found: list[Operation] = []
    for (path, container), wish in zip(_places(pod), wishes, strict=True):
        if wish.device:
            found += _limits(f"{path}/resources", container, wish)
        found += _env(f"{path}/env", container.env or [], _variables(container, wish, rules))
    return [*found, *_route(pod, rules)] if device_pod else found


def _places(pod: Pod) -> Iterator[tuple[str, Container]]:
    """Every container with its JSON pointer, in the order of `all_containers`."""
    for index, container in enumerate(pod.init_containers):
        yield f"/spec/initContainers/{index}", container
    for index, container in enumerate(pod.spec.containers):
        yield f"/spec/containers/{index}", container


def _limits(path: str, container: Container, wish: Wish) -> Iterator[Operation]:
    if not wish.added:
        return
    if container.resources is None:
        yield _add(path, {"limits": wish.added})
    elif not container.resources.limits:
        yield _add(f"{path}/limits", wish.added)
    else:
        for name, value in wish.added.items():
            yield _add(f"{path}/limits/{_escaped(name)}", value)


def _variables(container: Container, wish: Wish, rules: Rules) -> Variables:
    """What a container's variables are to be in a pod that is completed."""
    family = rules.family
    if not wish.device:
        return _blind(container) if not family.overwrite_env else _VISIBLE_NONE
    # A pod's own variable beats the one that the device plugin sets, and could name every card.
    wanted: dict[str, str | None] = {names.ENV_VISIBLE_DEVICES: None}
    if family.priority in wish.named:
        wanted[names.ENV_TASK_PRIORITY] = str(parse_integer(wish.named[family.priority]))
    if family.core_policy not in ("", "default"):
        wanted[names.ENV_CORE_POLICY] = family.core_policy
    return wanted


_VISIBLE_NONE: Variables = {names.ENV_VISIBLE_DEVICES: names.VISIBLE_NONE}


def _blind(container: Container) -> Variables:
    """Beside a device, a container that asks for none must not name cards by itself.

    Not removed but overwritten: many images bring `all` along.
    """
    for entry in container.env or []:
        if entry.name == names.ENV_VISIBLE_DEVICES and entry.value not in _SEES_NOTHING:
            return _VISIBLE_NONE
    return {}


def _env(path: str, env: list[EnvVar], wanted: Variables) -> list[Operation]:
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


def _route(pod: Pod, rules: Rules) -> Iterator[Operation]:
    """Send a device pod to our scheduler, mark it for our informers."""
    labels, spec = pod.metadata.labels, pod.spec
    if not labels:
        yield _add("/metadata/labels", {names.LABEL_DEVICE_POD: names.LABEL_DEVICE_POD_VALUE})
    elif labels.get(names.LABEL_DEVICE_POD) != names.LABEL_DEVICE_POD_VALUE:
        path = f"/metadata/labels/{_escaped(names.LABEL_DEVICE_POD)}"
        yield _add(path, names.LABEL_DEVICE_POD_VALUE)
    if rules.scheduler_name and spec.scheduler_name != rules.scheduler_name:
        yield _add("/spec/schedulerName", rules.scheduler_name)
    if rules.family.runtime_class and spec.runtime_class_name is None:
        yield _add("/spec/runtimeClassName", rules.family.runtime_class)


def _variable(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


def _add(path: str, value: Any) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _replace(path: str, value: Any) -> Operation:
    return {"op": "replace", "path": path, "value": value}


def _escaped(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
