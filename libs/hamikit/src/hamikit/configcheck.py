"""device-config.yaml as a whole: everything that is wrong with it, each with its line."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

Rule = Callable[[Any], str]
"""What a value must be, empty when it is that."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one line (counted from 1, 0 where there is none) of the file."""

    line: int
    text: str

    def __str__(self) -> str:
        """As an editor's quick-fix list understands it."""
        return f"line {self.line}: {self.text}" if self.line else self.text


@dataclass(frozen=True, slots=True)
class Checked:
    """What is wrong, and what is only odd: HAMi reads over a key that it does not know."""

    faults: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else "must be a text"


# An extended resource: a domain that is not Kubernetes' own, a slash, a name.
_RESOURCE = re.compile(
    r"(?!([^/]*\.)?kubernetes\.io/)[a-z0-9]([a-z0-9.-]*[a-z0-9])?/\w([\w.-]*\w)?"
)


def _resource(value: Any) -> str:
    if value == "" or (isinstance(value, str) and _RESOURCE.fullmatch(value, endpos=253)):
        return ""
    return "must be the name of an extended resource such as nvidia.com/gpu, or empty"


def _count_resource(value: Any) -> str:
    if value == "":
        return "must not be empty; the count is what a pod asks with"
    return _resource(value)


def _truth(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def _whole(low: int, high: int | None = None) -> Rule:
    bounds = f"from {low} to {high}" if high is not None else f"{low} or more"

    def rule(value: Any) -> str:
        # bool is an int in Python; `defaultCores: true` must not become 1.
        fine = isinstance(value, int) and not isinstance(value, bool)
        if fine and low <= value and (high is None or value <= high):
            return ""
        return f"must be a whole number, {bounds}"

    return rule


def _scaling(value: Any) -> str:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 100
    return "" if fine else "must be a number above 0 and at most 100"


def _one_of(*words: str) -> Rule:
    return lambda value: "" if value in words else f"must be one of {', '.join(words)}"


def _log_level(value: Any) -> str:
    return "" if str(value) in "01234" and str(value) else "must be 0, 1, 2, 3 or 4"


def _allowlist(value: Any) -> str:
    groups = value if isinstance(value, list) else [None]
    for group in groups:
        keys = group if isinstance(group, dict) else {}
        models, profiles = keys.get("models"), keys.get("profiles")
        if not (isinstance(models, list) and models and isinstance(profiles, list) and profiles):
            return "must be a list of groups, each with `models` and `profiles`"
        for profile in profiles:
            if not re.match(r"\d+g\.", str(profile)):
                return f"has the profile {profile!r}, but a profile is written like 1g.5gb"
    return ""


NVIDIA: Mapping[str, Rule] = {
    "resourceCountName": _count_resource,
    "resourceMemoryName": _resource,
    "resourceMemoryPercentageName": _resource,
    "resourceCoreName": _resource,
    "resourcePriorityName": _resource,
    "overwriteEnv": _truth,
    "defaultMemory": _whole(0),
    "defaultCores": _whole(0, 100),
    "defaultGPUNum": _whole(0),
    "memoryFactor": _whole(0),
    "preConfiguredDeviceMemory": _whole(0),
    "deviceSplitCount": _whole(1, 1000),
    "deviceMemoryScaling": _scaling,
    "deviceCoreScaling": _scaling,
    "enableNumaTopology": _truth,
    "libCudaLogLevel": _log_level,
    "gpuCorePolicy": _one_of("default", "force", "disable", "share", ""),
    "runtimeClassName": _text,
    "disableCoreLimit": _truth,
    "migProfileAllowlist": _allowlist,
    # HAMi's older name for the allow list; it ignores it too.
    "knownMigGeometries": lambda _: "",
    # Ours.
    "envMayLoosenLimits": _truth,
    "overheadPolicy": _one_of("strict", "report"),
    "binding": _one_of("late", "lock", "auto"),
}

SECTIONS = (
    *("nvidia", "metax", "hygon", "cambricon", "mthreads", "iluvatars", "enflame", "kunlun"),
    *("awsneuron", "amd", "vastai", "biren", "vnpus"),
    # NVIDIA's own device plugin keeps its settings in the same file.
    *("version", "flags", "sharing", "imex", "resources"),
)


def check(text: str) -> Checked:
    """Read a device-config.yaml and say all that is wrong with it."""
    try:
        document = YAML().load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        return Checked((Finding(line, f"not YAML: {error.problem or error}"),))
    except (YAMLError, ValueError) as error:
        return Checked((Finding(0, f"not YAML: {error}"),))
    if not isinstance(document, CommentedMap) or not isinstance(
        section := document.get("nvidia"), CommentedMap
    ):
        return Checked((Finding(0, "has no section `nvidia:` with settings; add one"),))
    faults = [*_values(section, NVIDIA), *_twice(section)]
    warnings = [*_unknown(document, SECTIONS, ""), *_unknown(section, tuple(NVIDIA), "nvidia.")]
    return Checked(_sorted(faults), _sorted(warnings))


def _sorted(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.line))


def _values(section: CommentedMap, rules: Mapping[str, Rule]) -> Iterator[Finding]:
    for key, value in section.items():
        if key in rules and value is not None and (fault := rules[key](value)):
            shown = f"{value!r} " if isinstance(value, str | int | float) else ""
            yield Finding(_line(section, key), f"nvidia.{key}: {shown}{fault}")


def _twice(section: CommentedMap) -> Iterator[Finding]:
    """A name that two resources share: nobody could tell which one a pod means."""
    seen: dict[str, str] = {}
    for key, value in section.items():
        if not (key in NVIDIA and key.startswith("resource") and isinstance(value, str) and value):
            continue
        if value in seen:
            text = f"nvidia.{key}: {value} is nvidia.{seen[value]} already; names must differ"
            yield Finding(_line(section, key), text)
        seen.setdefault(value, key)


def _unknown(mapping: CommentedMap, known: tuple[str, ...], where: str) -> Iterator[Finding]:
    for key in mapping:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"; is {close[0]} meant?" if close else ""
            text = f"{where}{key}: no such setting is known, it has no effect{hint}"
            yield Finding(_line(mapping, key), text)


def _line(mapping: CommentedMap, key: Any) -> int:
    return int(mapping.lc.key(key)[0]) + 1
