"""The ABIs that CUDA's own headers know: cudaTypedefs.h of the pinned wheels of CUDA 12 and 13."""

import re
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path

WHEELS = ("nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime")
TYPEDEF = re.compile(
    r"typedef\s+\w+\s*\(CUDAAPI\s*\*\s*PFN_(\w+?)_v(\d+)(_ptds|_ptsz)?\)\s*\(([^;]*)\);"
)


@dataclass(frozen=True, order=True, slots=True)
class Abi:
    """One typedef: what a name means from a CUDA version on."""

    base: str
    version: int
    per_thread: bool
    suffix: str
    parameters: str

    @property
    def key(self) -> tuple[str, int, bool]:
        return self.base, self.version, self.per_thread


def header(wheel: str, name: str) -> str:
    """The text of a header in an installed wheel."""
    found = [path for path in files(wheel) or () if path.name == name]
    assert found, f"{wheel} has no {name}: uv sync"
    return Path(str(found[0].locate())).read_text()


def abis() -> list[Abi]:
    """Every PFN_<name>_v<version> of both headers, once."""
    rows = {}
    for wheel in WHEELS:
        for base, version, suffix, parameters in TYPEDEF.findall(header(wheel, "cudaTypedefs.h")):
            abi = Abi(base, int(version), suffix != "", suffix, " ".join(parameters.split()))
            rows[abi.key] = abi
    return sorted(rows.values())


def symbols(rows: list[Abi]) -> dict[tuple[str, int, bool], str]:
    """The exported symbol of each ABI.

    The headers rename a call when its ABI changes (`#define cuMemAlloc cuMemAlloc_v2`). The newest
    ABI has the highest of these names, each older one the name before.
    """
    highest: dict[str, int] = {}
    for wheel in WHEELS:
        text = header(wheel, "cuda.h")
        for base, rank in re.findall(r"\b(cu[A-Z]\w*?)_v(\d+)(?:_pt[ds][sz])?\b\s*[(\n)]", text):
            highest[base] = max(highest.get(base, 1), int(rank))
    versions: dict[str, list[int]] = {}
    for row in rows:
        versions.setdefault(row.base, [])
        if row.version not in versions[row.base] and not row.per_thread:
            versions[row.base].append(row.version)
    named = {}
    for row in rows:
        order = sorted(versions[row.base])
        at = max(i for i, version in enumerate(order) if version <= row.version or i == 0)
        rank = max(highest.get(row.base, 1), len(order)) - (len(order) - 1 - at)
        named[row.key] = row.base + (f"_v{rank}" if rank > 1 else "") + row.suffix
    return named
