"""device-config.yaml: the operator's settings of each resource family, in HAMi v2.10's keys."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hamikit.devices import NVIDIA, DeviceFamily


class ConfigError(ValueError):
    """A configuration that cannot be used; the text says where and why."""


CORE_POLICIES = ("default", "force", "disable")

# Key in the file's `nvidia:` section -> (field of the row, what the value must be).
_NVIDIA_KEYS: dict[str, tuple[str, type]] = {
    "resourceCountName": ("count", str),
    "resourceMemoryName": ("memory", str),
    "resourceMemoryPercentageName": ("memory_percentage", str),
    "resourceCoreName": ("cores", str),
    "resourcePriorityName": ("priority", str),
    "defaultMemory": ("default_memory_mib", int),
    "defaultCores": ("default_cores", int),
    "defaultGPUNum": ("default_count", int),
    "memoryFactor": ("memory_factor", int),
    "runtimeClassName": ("runtime_class", str),
    "gpuCorePolicy": ("core_policy", str),
    "overwriteEnv": ("overwrite_env", bool),
}


def load_section(path: str, read: Callable[[str], str] | None = None) -> dict[str, Any]:
    """Return the `nvidia:` section of a device-config.yaml, unknown keys included.

    Raises:
        ConfigError: unreadable, not YAML, or the section is not a mapping.
    """
    try:
        text = read(path) if read else Path(path).read_text(encoding="utf-8")
        document = YAML(typ="safe").load(text)
    except (OSError, UnicodeError, YAMLError) as error:
        raise ConfigError(f"{path}: {error}; give a readable device-config.yaml") from error
    section = document.get("nvidia") if isinstance(document, dict) else None
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: has no section `nvidia:` with settings; add one")
    return section


def nvidia_family(section: dict[str, Any]) -> DeviceFamily:
    """The NVIDIA row with the operator's settings laid over it.

    Raises:
        ConfigError: a value of the wrong kind; names the key.
    """
    changes: dict[str, Any] = {}
    for key, (field, kind) in _NVIDIA_KEYS.items():
        value = section.get(key)
        if value is None:
            continue
        # bool is an int in Python; `defaultCores: true` must not become 1.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"nvidia.{key}: {value!r} must be of type {kind.__name__}")
        changes[field] = value
        _check(key, value)
    family = replace(NVIDIA, **changes)
    for name in family.resources:
        if family.resources.count(name) > 1:
            raise ConfigError(f"nvidia: the resource name {name} is given twice; names must differ")
    return family


def _check(key: str, value: Any) -> None:
    """ConfigError where a value is of the right kind and still means nothing."""
    if key == "resourceCountName" and not value:
        raise ConfigError(f"nvidia.{key}: must not be empty; the count is what a pod asks with")
    if key == "gpuCorePolicy" and value and value not in CORE_POLICIES:
        raise ConfigError(f"nvidia.{key}: {value!r} must be one of {', '.join(CORE_POLICIES)}")
    if key == "defaultCores" and not 0 <= value <= 100:
        raise ConfigError(f"nvidia.{key}: {value} is a percentage and must be from 0 to 100")
    if isinstance(value, int) and value < 0:
        raise ConfigError(f"nvidia.{key}: {value} must be 0 or more")


def load_family(path: str | None) -> DeviceFamily:
    """The NVIDIA row as configured by the file, or HAMi's defaults without one."""
    return nvidia_family(load_section(path)) if path else NVIDIA
