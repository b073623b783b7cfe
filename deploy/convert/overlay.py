"""Making the overlay: the chart's values in, files out. Reads nothing but its arguments."""

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from deploy.convert import table

Json = dict[str, Any]
WORKLOADS = {"hami-device-plugin": "DaemonSet", "hami-webhook": "Deployment"}
DAEMONS = ("hami-core", "hami-device-plugin", "hami-monitor")


@dataclass(frozen=True)
class Overlay:
    """What is written, and what there is to say about it."""

    files: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class Base:
    """The parts of our base that a value may change: device-config.yaml, config.yaml."""

    device_config: str
    scheduler_config: str


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Each value by its dotted name; a map that a row of the table takes whole stays whole."""
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and value and name not in table.SPECIAL:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def convert(values: Mapping[str, Any], base: Base, above: str) -> Overlay:
    """The overlay for a chart's values; `above` is the way from it to the folder deploy.

    A value that is null is the chart's default and makes nothing.
    """
    given = {key: value for key, value in flat(values) if value is not None}
    document = _device_config(given, base)
    scheduler = _scheduler_config(given, base, document)
    node_config = given.get("devicePlugin.nodeConfiguration.config")
    patched: dict[str, str] = {}
    if document is not None:
        patched["device-config.yaml"] = _config_map(
            "hami-device-config", "device-config.yaml", _dump(document)
        )
    if scheduler != base.scheduler_config:
        patched["kube-scheduler.yaml"] = _config_map(
            "hami-kube-scheduler", "config.yaml", scheduler
        )
    for workload, patch in _workloads(given, has_node_config=bool(node_config)).items():
        patched[f"{workload}.yaml"] = _dump(patch)
    added: dict[str, str] = {}
    if node_config:
        text = node_config if isinstance(node_config, str) else json.dumps(node_config, indent=2)
        added["node-config.yaml"] = _config_map("hami-node-config", "config.json", text)
    patches = [*({"path": name} for name in patched), *_json_patches(given)]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{above}/base", *added],
        "components": [f"{above}/features/{name}" for name in _features(given)],
        **({"patches": patches} if patches else {}),
    }
    files = {**added, **patched, "kustomization.yaml": _dump(kustomization)}
    return Overlay(files, list(_notes(given)))


def _features(given: Mapping[str, Any]) -> list[str]:
    wanted = {feature for key, feature in table.FEATURES.items() if _true(given.get(key))}
    if int(given.get("scheduler.replicas", 1)) > 1:
        wanted.add("high-availability")
    if "cert-manager" not in wanted:
        wanted.add("self-signed")
    return [*sorted(wanted), "release"]


def _true(value: Any) -> bool:
    """The chart has some truths as text."""
    return str(value).lower() == "true"


def _device_config(given: Mapping[str, Any], base: Base) -> Any:
    """The device-config.yaml, None where nothing is asked of it."""
    whole = given.get("device-config.content")
    asked = {name: given[key] for key, name in table.CONFIG.items() if key in given}
    if not whole and not asked:
        return None
    document = YAML().load(whole or base.device_config)
    if not whole:  # the chart takes `content` for the whole truth
        for name, value in asked.items():
            document["nvidia"][name] = _true(value) if name == "overwriteEnv" else value
    return document


def _scheduler_config(given: Mapping[str, Any], base: Base, document: Any) -> str:
    """kube-scheduler's settings with the profile's and the resources' names."""
    text = base.scheduler_config
    if document is not None:
        shipped = YAML(typ="safe").load(base.device_config)["nvidia"]
        for key, old in shipped.items():
            new = document["nvidia"].get(key)
            if key.startswith("resource") and new and new != old:
                text = text.replace(f"name: {old},", f"name: {new},")
    if "schedulerName" in given:
        text = text.replace(
            "schedulerName: hami-scheduler", f"schedulerName: {given['schedulerName']}"
        )
    return text


def _workloads(given: Mapping[str, Any], *, has_node_config: bool) -> dict[str, Json]:
    """Strategic merge patches by workload."""
    env: dict[tuple[str, str], Json] = {}
    for key, variables in table.ENV.items():
        if key in given:
            value = given[key]
            text = str(value).lower() if isinstance(value, bool) else str(value)
            for place, name in variables:
                env.setdefault(place, {})[name] = text
    if given.get("scheduler.defaultSchedulerPolicy.gpuSchedulerPolicy") == "topology-aware":
        env.setdefault(table.PLUGIN, {})["ENABLE_TOPOLOGY_SCORE"] = "true"
    if has_node_config:
        env.setdefault(table.PLUGIN, {})["NODE_CONFIG_FILE"] = "/etc/hami-node/config.json"
    patches: dict[str, Json] = {}
    for (workload, container), variables in env.items():
        patch = patches.setdefault(workload, _patch(workload))
        spec = patch["spec"]["template"]["spec"]
        kind = "initContainers" if (workload, container) == table.KEEPER else "containers"
        listed = [{"name": name, "value": value} for name, value in variables.items()]
        spec.setdefault(kind, []).append({"name": container, "env": listed})
    if has_node_config:
        spec = patches["hami-device-plugin"]["spec"]["template"]["spec"]
        mount = {"name": "node-config", "mountPath": "/etc/hami-node", "readOnly": True}
        spec["containers"][0]["volumeMounts"] = [mount]
        spec["volumes"] = [{"name": "node-config", "configMap": {"name": "hami-node-config"}}]
    return patches


def _patch(workload: str) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": WORKLOADS.get(workload, "Deployment"),
        "metadata": {"name": workload, "namespace": "hami-system"},
        "spec": {"template": {"spec": {}}},
    }


def _json_patches(given: Mapping[str, Any]) -> Iterator[Json]:
    """Where something is replaced whole, or appended to a list without names."""
    spared = given.get("scheduler.admissionWebhook.whitelistNamespaces")
    if spared:
        path = "/webhooks/0/namespaceSelector/matchExpressions/1/values/-"
        operations = [{"op": "add", "path": path, "value": name} for name in spared]
        target = {"kind": "MutatingWebhookConfiguration", "name": "hami-webhook"}
        yield {"target": target, "patch": LiteralScalarString(_dump(operations))}
    selector = given.get("devicePlugin.nvidiaNodeSelector")
    if selector:
        path = "/spec/template/spec/nodeSelector"
        operations = [{"op": "replace", "path": path, "value": dict(selector)}]
        for name in DAEMONS:
            target = {"kind": "DaemonSet", "name": name}
            yield {"target": target, "patch": LiteralScalarString(_dump(operations))}


def _notes(given: Mapping[str, Any]) -> Iterator[str]:
    """What was not carried over, and why."""
    known = {*table.CONFIG, *table.ENV, *table.FEATURES, *table.SPECIAL}
    for key in given:
        if key not in known:
            why = table.reason(key) or "the chart has no such value"
            yield f"{key}: not carried over; {why}"
    if "device-config.content" in given:
        for key in table.CONFIG:
            if key in given:
                yield f"{key}: not carried over; the chart takes device-config.content alone"


def _config_map(name: str, key: str, text: str) -> str:
    return _dump(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "hami-system"},
            "data": {key: LiteralScalarString(text)},
        }
    )


def _dump(value: Any) -> str:
    out = io.StringIO()
    YAML().dump(_quoted(value), out)
    return out.getvalue()


# Texts that kubectl, which reads YAML 1.1, would take for a truth or a number.
_MISREAD = re.compile(r"(?i)y|yes|n|no|on|off|[-+]?[0-9][0-9_:.]*")


def _quoted(value: Any) -> Any:
    """The same with quotes where YAML 1.1 needs them; in place, so comments survive."""
    if isinstance(value, dict):
        for key in value:
            value[key] = _quoted(value[key])
    elif isinstance(value, list):
        value[:] = map(_quoted, value)
    elif isinstance(value, str) and _MISREAD.fullmatch(value):
        return DoubleQuotedScalarString(value)
    return value
