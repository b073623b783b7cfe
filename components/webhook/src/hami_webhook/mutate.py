"""From the pod that a user wrote to the pod that the scheduler can place."""

import copy
from typing import Any

from hami_webhook.fill import additions, asked, asks
from hami_webhook.rules import Rules
from hamikit import names
from hamikit.quantity import parse_integer

Json = dict[str, Any]


def mutate(pod: Json, rules: Rules) -> Json:
    """A completed copy of a pod; equal to the pod when it asks for no device.

    The pod must have passed `validate`. Fields that this program does not know are kept as they
    are. Completing a completed pod changes nothing.
    """
    pod = copy.deepcopy(pod)
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    # A list, not any(): every container has to be completed.
    if any([_complete(container, rules) for container in containers]):  # noqa: C419
        _route(pod, rules)
    return pod


def _complete(container: Json, rules: Rules) -> bool:
    """Complete one container in place and say whether it asks for a device."""
    family = rules.family
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    if not asks(limits, requests, family):
        if family.overwrite_env:
            _set_env(container, names.ENV_VISIBLE_DEVICES, names.VISIBLE_NONE)
        return False
    named = asked(limits, requests, family)
    added = additions(limits, requests, family)
    if added:
        container["resources"] = {**resources, "limits": {**limits, **added}}
    if family.priority in named:
        _set_env(container, names.ENV_TASK_PRIORITY, str(parse_integer(named[family.priority])))
    if family.core_policy not in ("", "default"):
        _set_env(container, names.ENV_CORE_POLICY, family.core_policy)
    # A pod's own variable beats the one that the device plugin sets, and could name every card.
    _drop_env(container, names.ENV_VISIBLE_DEVICES)
    return True


def _route(pod: Json, rules: Rules) -> None:
    """Send a device pod to our scheduler, mark it for our informers."""
    spec = pod["spec"]
    metadata = pod.setdefault("metadata", {})
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        names.LABEL_DEVICE_POD: names.LABEL_DEVICE_POD_VALUE,
    }
    if rules.scheduler_name:
        spec["schedulerName"] = rules.scheduler_name
    if rules.family.runtime_class and spec.get("runtimeClassName") is None:
        spec["runtimeClassName"] = rules.family.runtime_class


def _set_env(container: Json, name: str, value: str) -> None:
    """Give a variable this value; it stands once, where it stood before or at the end."""
    env: list[Json] = container.get("env") or []
    ours = {"name": name, "value": value}
    places = [index for index, entry in enumerate(env) if entry.get("name") == name]
    first = places[0] if places else len(env)
    others = [entry for entry in env if entry.get("name") != name]
    container["env"] = [*others[:first], ours, *others[first:]]


def _drop_env(container: Json, name: str) -> None:
    env: list[Json] = container.get("env") or []
    if any(entry.get("name") == name for entry in env):
        container["env"] = [entry for entry in env if entry.get("name") != name]
