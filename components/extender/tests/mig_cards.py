"""Cards that MIG divides: profiles and places as `nvidia-smi mig -lgip` and `-lgipp` show them.

Source: NVIDIA Multi-Instance GPU User Guide, chapter Supported MIG Profiles.
"""

from pathlib import Path

from hamikit.codec import RegisteredDevice
from hamikit.instances import MigProfile, Placement


def profile(name: str, memory_mib: int, core: int, slices: int, *starts: int, size: int):
    """A profile that can be made at these starts."""
    places = tuple(Placement(start, size) for start in starts)
    return MigProfile(name, memory_mib, core, slices, places)


A30 = (
    profile("1g.6gb", 5952, 25, 1, 0, 1, 2, 3, size=1),
    profile("2g.12gb", 11968, 50, 2, 0, 2, size=2),
    profile("4g.24gb", 24064, 100, 4, 0, size=4),
)
A100_40 = (
    profile("1g.5gb", 4864, 15, 1, 0, 1, 2, 3, 4, 5, 6, size=1),
    profile("1g.10gb", 9984, 15, 1, 0, 2, 4, 6, size=2),
    profile("2g.10gb", 9984, 29, 2, 0, 2, 4, size=2),
    profile("3g.20gb", 20096, 43, 3, 0, 4, size=4),
    profile("4g.20gb", 20096, 58, 4, 0, size=4),
    profile("7g.40gb", 40448, 100, 7, 0, size=8),
)
A100_80 = (
    profile("1g.10gb", 9728, 15, 1, 0, 1, 2, 3, 4, 5, 6, size=1),
    profile("1g.20gb", 19968, 15, 1, 0, 2, 4, 6, size=2),
    profile("2g.20gb", 19968, 29, 2, 0, 2, 4, size=2),
    profile("3g.40gb", 40192, 43, 3, 0, 4, size=4),
    profile("4g.40gb", 40192, 58, 4, 0, size=4),
    profile("7g.80gb", 80896, 100, 7, 0, size=8),
)
H100_80 = (
    profile("1g.10gb", 9984, 13, 1, 0, 1, 2, 3, 4, 5, 6, size=1),
    profile("1g.20gb", 20096, 20, 1, 0, 2, 4, 6, size=2),
    profile("2g.20gb", 20096, 25, 2, 0, 2, 4, size=2),
    profile("3g.40gb", 40448, 46, 3, 0, 4, size=4),
    profile("4g.40gb", 40448, 49, 4, 0, size=4),
    profile("7g.80gb", 81152, 100, 7, 0, size=8),
)
H200 = (
    profile("1g.18gb", 16384, 13, 1, 0, 1, 2, 3, 4, 5, 6, size=1),
    profile("1g.35gb", 33280, 20, 1, 0, 2, 4, 6, size=2),
    profile("2g.35gb", 33280, 25, 2, 0, 2, 4, size=2),
    profile("3g.71gb", 67072, 46, 3, 0, 4, size=4),
    profile("4g.71gb", 67072, 49, 4, 0, size=4),
    profile("7g.141gb", 143360, 100, 7, 0, size=8),
)
B200 = (
    profile("1g.23gb", 22016, 13, 1, 0, 1, 2, 3, 4, 5, 6, size=1),
    profile("1g.45gb", 44544, 21, 1, 0, 2, 4, 6, size=2),
    profile("2g.45gb", 44544, 25, 2, 0, 2, 4, size=2),
    profile("3g.90gb", 89600, 48, 3, 0, 4, size=4),
    profile("4g.90gb", 89600, 49, 4, 0, size=4),
    profile("7g.180gb", 182272, 100, 7, 0, size=8),
)
RTX_PRO_6000 = (
    profile("1g.24gb", 24192, 25, 1, 0, 1, 2, 3, size=1),
    profile("2g.48gb", 48512, 50, 2, 0, 2, size=2),
    profile("4g.96gb", 97280, 100, 4, 0, size=4),
)
CARDS = {
    "A30": A30, "A100-40": A100_40, "A100-80": A100_80, "H100-80": H100_80, "H200": H200,
    "B200": B200, "RTX PRO 6000": RTX_PRO_6000,
}  # fmt: skip


def _simulated():
    """The tables of the simulated driver, with every variant (+me, +gfx, -me), by model."""
    for path in sorted((Path(__file__).parents[3] / "e2e/fakegpu/cards").glob("*.txt")):
        lines = [line.split("=") for line in path.read_text().splitlines() if "=" in line]
        rows = [value.split() for key, value in lines if key.strip() == "mig_profile"]
        found = []
        for name, _, _, slices, _, memory, _, places in rows:
            starts, _, size = places.partition(":")
            wanted = map(int, starts.split(","))
            found.append(profile(name, int(memory), 0, int(slices), *wanted, size=int(size)))
        if found:
            [model] = [value.strip() for key, value in lines if key.strip() == "model"]
            yield model, tuple(found)


TABLES = dict(_simulated())

HAMI_A100_40 = tuple(p for p in A100_40 if p.name in ("1g.5gb", "2g.10gb", "3g.20gb", "7g.40gb"))
"""Those that HAMi's chart allows on an A100 of 40 GB."""


def mig_device(uuid: str, index: int = 0, profiles=HAMI_A100_40, memory: int = 40960):
    """A card in MIG mode, as its node announces it."""
    return RegisteredDevice(
        id=uuid, index=index, count=7, devmem=memory, devcore=100, type="NVIDIA-A100",
        mode="mig", mig_profiles=profiles, health=True,
    )  # fmt: skip
