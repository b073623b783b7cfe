"""Whether this node's container runtime acts on CDI devices, and whether it is NVIDIA's."""

import glob
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger()

# Where containerd keeps the settings of its CRI plugin, by version of its configuration file.
_SECTIONS = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri")
_CONTAINERD = re.compile(r"containerd://v?(\d+)\.(\d+)")


class Runtime:
    """The runtime as the node names it, with its configuration file."""

    def __init__(self, config: Path, dynamic_dir: Path) -> None:
        self._config, self._dynamic_dir = config, dynamic_dir
        self.version = ""
        """As in the node's status, such as `containerd://2.2.1`; empty until known."""

    def cdi_off(self) -> str | None:
        """Why a CDI device would have no effect here; None when it has.

        The file is read anew each time: an operator may just have changed it.
        """
        settings = cri_settings(self._config)
        return why_off(self.version, settings, str(self._config), str(self._dynamic_dir))

    def has_nvidia(self) -> bool | None:
        """Whether an NVIDIA runtime is set up; None where that cannot be read."""
        if not self.version.startswith("containerd://"):
            return None
        return names_nvidia(cri_settings(self._config))


def why_off(version: str, settings: Mapping[str, Any], path: str, dynamic_dir: str) -> str | None:
    """Why CDI is off, from the runtime's version and the settings of its CRI plugin."""
    if settings.get("enable_cdi") is False:
        return (
            f"CDI is switched off on this node (enable_cdi=false in {path}); "
            "set enable_cdi = true and restart containerd"
        )
    if version.startswith("docker://"):
        return "this node's runtime is Docker (cri-dockerd), which has no CDI; use containerd"
    match = _CONTAINERD.match(version)
    if match is None:
        return None  # not known yet, or a runtime of which we know nothing bad
    return _containerd_off((int(match[1]), int(match[2])), version, settings, (path, dynamic_dir))


def _containerd_off(
    release: tuple[int, int], version: str, settings: Mapping[str, Any], places: tuple[str, str]
) -> str | None:
    path, dynamic_dir = places
    if release < (1, 7):
        return f"this node's runtime is {version}, CDI came with containerd 1.7; upgrade it"
    if release < (2, 0) and not settings.get("enable_cdi"):
        return (
            f"CDI is switched off on this node (the default of {version}); set enable_cdi = true "
            f"in {path} and restart containerd"
        )
    folders = settings.get("cdi_spec_dirs")
    if folders is not None and dynamic_dir not in map(_real, folders):
        return (
            f"containerd does not look for CDI specifications in {dynamic_dir} (cdi_spec_dirs in "
            f"{path} is {folders}); add it and restart containerd"
        )
    return None


def names_nvidia(settings: Mapping[str, Any]) -> bool:
    """Whether one of the runtimes in the CRI plugin's settings is NVIDIA's."""
    runtimes = _mapping(_mapping(settings.get("containerd")).get("runtimes"))
    programs = [
        str(_mapping(_mapping(runtime).get("options")).get("BinaryName", ""))
        for runtime in runtimes.values()
    ]
    return any("nvidia" in text for text in [*runtimes, *map(os.path.basename, programs)])


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _real(folder: str) -> str:
    # /var/run is /run nearly everywhere, and either spelling is in use.
    return f"/var{folder}" if folder.startswith("/run/") else folder


def cri_settings(path: Path) -> dict[str, Any]:
    """The CRI plugin's settings of a containerd configuration with its imports laid over it."""
    settings: dict[str, Any] = {}
    document = _load(path)
    for found in (document, *map(_load, _imports(path, document))):
        plugins = found.get("plugins")
        if isinstance(plugins, dict):
            for section in _SECTIONS:
                settings = _laid_over(settings, _mapping(plugins.get(section)))
    return settings


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A later file's settings over an earlier one's: tables by key, all else replaced."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _laid_over(below[key], above[key])
    return merged


def _imports(path: Path, document: Mapping[str, Any]) -> list[Path]:
    patterns = document.get("imports") or []
    joined = (os.path.join(path.parent, pattern) for pattern in patterns)
    return [Path(name) for pattern in joined for name in sorted(glob.glob(pattern))]


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}  # containerd's defaults hold
    except (OSError, ValueError) as error:
        log.warning("runtime configuration cannot be read", path=str(path), error=str(error))
        return {}
