"""The operator's settings for this node: device-config.yaml with config.json's entries over it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

import msgspec

from hamikit import names
from hamikit.deviceconfig import ConfigError, nvidia_family
from hamikit.devices import NVIDIA, DeviceFamily


class Overhead(StrEnum):
    """Whether what contexts and modules take counts against a container's limit."""

    STRICT = "strict"
    REPORT = "report"


class Wish(StrEnum):
    """What the operator wants of a node: `auto` is late binding where CDI is on, else the lock."""

    LATE = "late"
    LOCK = "lock"
    AUTO = "auto"


class MigStrategy(StrEnum):
    """Whether instances that were made by hand are offered; HAMi's `single` is read as `none`."""

    NONE = "none"
    SINGLE = "single"
    MIXED = "mixed"


class MigGroup(msgspec.Struct, frozen=True):
    """Card models, by parts of their names, and the MIG profiles that are announced of them."""

    models: tuple[str, ...]
    profiles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """How this node's cards are shared out.

    A card may be shared by `split_count` tasks; memory and cores are announced times their
    scaling; `preconfigured_memory_mib` stands in where NVML does not tell a card's memory.
    With `env_may_loosen` HAMi's variables in a container count that lift its limits. A memory
    scaling above 1 is virtual memory: the part of a limit above limit / scaling may spill to the
    host.
    """

    family: DeviceFamily = NVIDIA
    split_count: int = 10
    memory_scaling: float = 1.0
    core_scaling: float = 1.0
    preconfigured_memory_mib: int = 0
    mode: str = names.MODE_HAMI_CORE
    mig_groups: tuple[MigGroup, ...] = ()
    mig_strategy: MigStrategy = MigStrategy.NONE
    disable_core_limit: bool = False
    env_may_loosen: bool = False
    overhead: Overhead = Overhead.STRICT
    log_level: int | None = None
    hidden_uuids: frozenset[str] = frozenset()
    hidden_indexes: frozenset[int] = frozenset()
    wish: Wish = Wish.LATE
    """Which protocol this node is to speak."""
    numa_hints: bool = False
    """With the lock protocol: kubelet is told the NUMA node of each id's card."""
    prefer_ids: bool = False
    """With the lock protocol: kubelet is told which ids to choose, and the card follows the id."""

    @property
    def static_mig(self) -> bool:
        """Whether instances are offered as they were made by hand; not where they come and go."""
        managed = self.mode in (names.MODE_MIG, names.MODE_AUTO)
        return self.mig_strategy is MigStrategy.MIXED and not managed


_WORDS = {
    int: "of type int",
    float: "of type float",
    bool: "of type bool",
    str: "of type str",
    Wish: f"one of {', '.join(Wish)}",
    Overhead: f"one of {', '.join(Overhead)}",
    MigStrategy: f"one of {', '.join(MigStrategy)}",
}


class _Filter(msgspec.Struct):
    """Cards that HAMi is to leave alone."""

    uuid: list[str] | None = None
    index: list[int] | None = None


def changes(before: Settings, after: Settings) -> dict[str, str]:
    """What differs, for the log."""
    pairs = ((f.name, getattr(before, f.name), getattr(after, f.name)) for f in fields(before))
    return {name: f"{old} -> {new}" for name, old, new in pairs if old != new}


# Key, lower-cased as HAMi compares it in config.json -> (field, what its value must be).
_KEYS: dict[str, tuple[str, type]] = {
    "devicesplitcount": ("split_count", int),
    "devicememoryscaling": ("memory_scaling", float),
    "devicecorescaling": ("core_scaling", float),
    "preconfigureddevicememory": ("preconfigured_memory_mib", int),
    "disablecorelimit": ("disable_core_limit", bool),
    "envmayloosenlimits": ("env_may_loosen", bool),
    "overheadpolicy": ("overhead", Overhead),
    "libcudaloglevel": ("log_level", int),
    "binding": ("wish", Wish),
    "migstrategy": ("mig_strategy", MigStrategy),
    "enablenumatopology": ("numa_hints", bool),
}
_NODE_KEYS: dict[str, tuple[str, type]] = {
    **_KEYS,
    "operatingmode": ("mode", str),
    "enablegetpreferredallocation": ("prefer_ids", bool),
}


def cluster_settings(section: Mapping[str, Any]) -> Settings:
    """Settings from the `nvidia:` section of device-config.yaml.

    Raises:
        ConfigError: a value of the wrong kind; names the key.
    """
    groups = _lowered(section).get("migprofileallowlist") or []
    try:
        listed = msgspec.convert(groups, tuple[MigGroup, ...])
    except msgspec.ValidationError as error:
        raise ConfigError(f"nvidia: migProfileAllowlist is {groups!r}: {error}") from error
    plain = Settings(family=nvidia_family(dict(section)), mig_groups=listed)
    return _checked(_overlaid(plain, _lowered(section), _KEYS, "nvidia"))


def node_settings(cluster: Settings, text: str, node: str) -> Settings:
    """The cluster's settings with those of config.json for this node; a later entry wins.

    Keys match in any case; a key that is present counts, whatever its value.

    Raises:
        ConfigError: not the form of config.json, or a value of the wrong kind.
    """
    try:
        entries = [_lowered(entry) for entry in _lowered(json.loads(text))["nodeconfig"]]
        mine = [entry for entry in entries if entry.get("name") == node]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f'config.json: {error!r}; it must be {{"nodeconfig": [{{"name": ..., ...}}]}}'
        ) from error
    settings = cluster
    for entry in mine:
        settings = _overlaid(settings, entry, _NODE_KEYS, f"nodeconfig of {node}")
        if entry.get("filterdevices") is not None:
            settings = _filtered(settings, entry["filterdevices"], f"nodeconfig of {node}")
    return _checked(settings)


def _filtered(settings: Settings, value: Any, where: str) -> Settings:
    try:
        hidden = msgspec.convert(_lowered(value), _Filter)
    except (msgspec.ValidationError, AttributeError) as error:
        raise ConfigError(f"{where}: filterdevices is {value!r}: {error}") from error
    return replace(
        settings,
        hidden_uuids=frozenset(hidden.uuid or ()),
        hidden_indexes=frozenset(hidden.index or ()),
    )


def _lowered(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in mapping.items()}


def _overlaid(
    settings: Settings, values: Mapping[str, Any], keys: Mapping[str, tuple[str, type]], where: str
) -> Settings:
    changes: dict[str, Any] = {}
    for key, (field, kind) in keys.items():
        value = values.get(key)
        if value is None:
            continue
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if key == "libcudaloglevel" and isinstance(value, str) and value.isdecimal():
            value = int(value)
        if issubclass(kind, StrEnum) and value in list(kind):
            value = kind(value)
        # bool is an int in Python; a count of `true` is a mistake.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{where}: {key} is {value!r}, must be {_WORDS[kind]}")
        changes[field] = value
    return replace(settings, **changes)


def _checked(settings: Settings) -> Settings:
    if not 1 <= settings.split_count <= 1000:
        raise ConfigError(f"deviceSplitCount is {settings.split_count}, must lie in 1..1000")
    for name, value in (
        ("deviceMemoryScaling", settings.memory_scaling),
        ("deviceCoreScaling", settings.core_scaling),
    ):
        if not 0 < value <= 100:
            raise ConfigError(f"{name} is {value}, must be above 0 and at most 100")
    return settings
