"""device-config.yaml: the operator's settings of each resource family, in HAMi v2.10's keys."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hamikit.ascend import ascend_row
from hamikit.devices import HYGON, NVIDIA, DeviceFamily, Template


class ConfigError(ValueError):
    """A configuration that cannot be used; the text says where and why."""


CORE_POLICIES = ("default", "force", "disable", "share")

Keys = Mapping[str, tuple[str, type]]
"""Key in a section -> (field of the row, what the value must be)."""

_NAMES: Keys = {
    "resourceCountName": ("count", str),
    "resourceMemoryName": ("memory", str),
    "resourceCoreName": ("cores", str),
    "memoryFactor": ("memory_factor", int),
}
_NVIDIA_KEYS: Keys = {
    **_NAMES,
    "resourceMemoryPercentageName": ("memory_percentage", str),
    "resourcePriorityName": ("priority", str),
    "defaultMemory": ("default_memory_mib", int),
    "defaultCores": ("default_cores", int),
    "defaultGPUNum": ("default_count", int),
    "runtimeClassName": ("runtime_class", str),
    "gpuCorePolicy": ("core_policy", str),
    "overwriteEnv": ("overwrite_env", bool),
}
_ASCEND_KEYS: Keys = {
    "resourceName": ("count", str),
    "resourceMemoryName": ("memory", str),
    "resourceCoreName": ("cores", str),
    "memoryFactor": ("memory_factor", int),
    "memoryAllocatable": ("memory_allocatable_mib", int),
    "memoryCapacity": ("memory_capacity_mib", int),
    "runtimeClassName": ("runtime_class", str),
    "overwriteEnv": ("overwrite_env", bool),
}
_TEMPLATE_KEYS: Keys = {
    "name": ("name", str),
    "memory": ("memory_mib", int),
    "aiCore": ("cores", int),
    "aiCPU": ("cpus", int),
}


def load_document(path: str, read: Callable[[str], str] | None = None) -> dict[str, Any]:
    """A whole device-config.yaml.

    Raises:
        ConfigError: unreadable, not YAML, or no mapping with a section `nvidia:`.
    """
    try:
        text = read(path) if read else Path(path).read_text(encoding="utf-8")
        document = YAML(typ="safe").load(text)
    except (OSError, UnicodeError, YAMLError) as error:
        raise ConfigError(f"{path}: {error}; give a readable device-config.yaml") from error
    if not isinstance(document, dict) or not isinstance(document.get("nvidia"), dict):
        raise ConfigError(f"{path}: has no section `nvidia:` with settings; add one")
    return document


def load_section(path: str, read: Callable[[str], str] | None = None) -> dict[str, Any]:
    """Return the `nvidia:` section of a device-config.yaml, unknown keys included.

    Raises:
        ConfigError: unreadable, not YAML, or the section is not a mapping.
    """
    section: dict[str, Any] = load_document(path, read)["nvidia"]
    return section


def nvidia_family(section: dict[str, Any]) -> DeviceFamily:
    """The NVIDIA row with the operator's settings laid over it.

    Raises:
        ConfigError: a value of the wrong kind; names the key.
    """
    return _overlaid(NVIDIA, section, _NVIDIA_KEYS, "nvidia")


def hygon_family(section: dict[str, Any]) -> DeviceFamily:
    """The Hygon DCU row with the operator's settings laid over it.

    Raises:
        ConfigError: a value of the wrong kind; names the key.
    """
    return _overlaid(HYGON, section, _NAMES, "hygon")


def ascend_families(section: Any) -> tuple[DeviceFamily, ...]:
    """One row for each chip of a `vnpus:` section: a map with `configs`, or HAMi's older bare list.

    Raises:
        ConfigError: another form, or a value of the wrong kind; names the key.
    """
    soft, chips = False, section
    if isinstance(section, dict):
        soft, chips = section.get("hamiVnpuCore") or False, section.get("configs") or []
    if not isinstance(chips, list) or not all(isinstance(chip, dict) for chip in chips):
        raise ConfigError("vnpus: must be a list of chips, or a map with such a list in `configs`")
    if not isinstance(soft, bool):
        raise ConfigError(f"vnpus.hamiVnpuCore: {soft!r} must be of type bool")
    return tuple(_chip(chip, number, soft=soft) for number, chip in enumerate(chips))


def _chip(chip: dict[str, Any], number: int, *, soft: bool) -> DeviceFamily:
    where = f"vnpus.configs[{number}]"
    word = chip.get("commonWord")
    if not isinstance(word, str) or not word:
        raise ConfigError(f"{where}.commonWord: {word!r} must be the chip's name")
    row = _overlaid(
        ascend_row(word, super_pod=chip.get("superPod") is True), chip, _ASCEND_KEYS, where
    )
    entries = chip.get("templates") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{where}.templates: must be a list of templates")
    templates = [
        Template(**{"name": "", "memory_mib": 0, "cores": 0, **_values(e, _TEMPLATE_KEYS, where)})
        for e in entries
    ]
    row = replace(
        row,
        soft_nodes=soft,
        templates=tuple(sorted(templates, key=lambda template: template.memory_mib)),
        memory_capacity_mib=row.memory_capacity_mib or row.memory_allocatable_mib,
    )
    if row.memory_allocatable_mib <= 0:
        raise ConfigError(f"{where}.memoryAllocatable: must say how much a whole card gives, MiB")
    return row


def _overlaid(
    row: DeviceFamily, section: Mapping[str, Any], keys: Keys, where: str
) -> DeviceFamily:
    family = replace(row, **_values(section, keys, where))
    for name in family.resources:
        if family.resources.count(name) > 1:
            raise ConfigError(
                f"{where}: the resource name {name} is given twice; names must differ"
            )
    return family


def _values(section: Mapping[str, Any], keys: Keys, where: str) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for key, (field, kind) in keys.items():
        value = section.get(key)
        if value is None:
            continue
        # bool is an int in Python; `defaultCores: true` must not become 1.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{where}.{key}: {value!r} must be of type {kind.__name__}")
        changes[field] = value
        _check(where, key, value)
    return changes


def _check(where: str, key: str, value: Any) -> None:
    """ConfigError where a value is of the right kind and still means nothing."""
    if key in ("resourceCountName", "resourceName") and not value:
        raise ConfigError(f"{where}.{key}: must not be empty; the count is what a pod asks with")
    if key == "gpuCorePolicy" and value and value not in CORE_POLICIES:
        raise ConfigError(f"{where}.{key}: {value!r} must be one of {', '.join(CORE_POLICIES)}")
    if key == "defaultCores" and not 0 <= value <= 100:
        raise ConfigError(f"{where}.{key}: {value} is a percentage and must be from 0 to 100")
    if isinstance(value, int) and value < 0:
        raise ConfigError(f"{where}.{key}: {value} must be 0 or more")


def load_family(path: str | None) -> DeviceFamily:
    """The NVIDIA row as configured by the file, or HAMi's defaults without one."""
    return nvidia_family(load_section(path)) if path else NVIDIA


def load_families(
    path: str | None, *, ascend: bool = False, read: Callable[[str], str] | None = None
) -> tuple[DeviceFamily, ...]:
    """The row of every family that a file has a section for; without a file NVIDIA's alone.

    `ascend`: whether the chips under `vnpus:` count (HAMi's --enable-ascend).

    Raises:
        ConfigError: a section that cannot be used, or two families with one name.
    """
    if not path:
        return (NVIDIA,)
    document = load_document(path, read)
    families = [nvidia_family(document["nvidia"])]
    hygon = document.get("hygon")
    if isinstance(hygon, dict) and hygon:
        families.append(hygon_family(hygon))
    if ascend and document.get("vnpus") is not None:
        families += ascend_families(document["vnpus"])
    _distinct(families)
    return tuple(families)


def _distinct(families: list[DeviceFamily]) -> None:
    """ConfigError where two families share a resource, an annotation or their word."""
    owner: dict[str, str] = {}
    for family in families:
        for name in {
            family.vendor,
            family.register_annotation,
            family.allocated_annotation,
            *family.resources,
        }:
            if name in owner:
                raise ConfigError(f"{name} belongs to {owner[name]} and to {family.vendor}")
            owner[name] = family.vendor
