"""Cards as NVML tells them."""

# ruff: noqa: N802 - pynvml's names

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hamikit.gpu import MIB, Card, GpuError, Nvml


class FakeError(Exception):
    """NVML's error: a code."""

    def __init__(self, value: int) -> None:
        self.value = value
        super().__init__(f"code {value}")


class FakeNvml:
    """As much of pynvml as discovery needs; faults by (function, index)."""

    NVMLError = FakeError
    NVML_ERROR_NOT_SUPPORTED = 3

    def __init__(self, cards: list[tuple[str, str, int]], faults: dict[Any, int] | None = None):
        self.cards, self.faults, self.calls = cards, faults or {}, []

    def _maybe(self, *key: Any) -> None:
        self.calls.append(key[0])
        if key in self.faults:
            raise FakeError(self.faults[key])

    def nvmlInit(self) -> None:
        self._maybe("init")

    def nvmlShutdown(self) -> None:
        self._maybe("shutdown")

    def nvmlDeviceGetCount(self) -> int:
        self._maybe("count")
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._maybe("handle", index)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return [card[0] for card in self.cards].index(uuid)

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return self.cards[handle][0].encode()

    def nvmlDeviceGetName(self, handle: int) -> str:
        return self.cards[handle][1]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        self._maybe("memory", handle)
        return SimpleNamespace(total=self.cards[handle][2])

    def nvmlDeviceGetPciInfo(self, handle: int) -> Any:
        self._maybe("pci", handle)
        return SimpleNamespace(busId=f"00000000:0{handle}:00.0")


TWO = [("GPU-a", "NVIDIA A100", 40 * 1024 * MIB), ("GPU-b", "Tesla T4", 15 * 1024 * MIB + 7)]


def nvml(fake: FakeNvml, root: Path) -> Nvml:
    """A client over a fake driver root."""
    return Nvml(root / "driver", binding=fake, load=lambda _: None, sys_root=root / "sys")


def test_lists_every_card(tmp_path: Path) -> None:
    """Memory is rounded down to MiB and the NUMA node comes from sysfs."""
    for index, text in ((0, "1\n"), (1, "-1\n")):
        folder = tmp_path / f"sys/bus/pci/devices/0000:0{index}:00.0"
        folder.mkdir(parents=True)
        (folder / "numa_node").write_text(text)
    expected = (
        Card("GPU-a", 0, "NVIDIA A100", 40960, numa=1),
        Card("GPU-b", 1, "Tesla T4", 15360, numa=None),
    )
    assert nvml(FakeNvml(TWO), tmp_path).cards() == expected


def test_a_lost_card_is_unhealthy_or_absent(tmp_path: Path) -> None:
    """A card that has a name but no answer is unhealthy; one without a name is left out."""
    fake = FakeNvml(TWO, {("memory", 0): 15, ("handle", 1): 15})
    (card,) = nvml(fake, tmp_path).cards()
    assert (card.uuid, card.healthy, card.memory_mib) == ("GPU-a", False, None)


def test_unknown_memory_is_no_fault(tmp_path: Path) -> None:
    """NOT_SUPPORTED for memory means only that NVML does not tell."""
    cards = nvml(FakeNvml(TWO, {("memory", 0): 3}), tmp_path).cards()
    assert (cards[0].memory_mib, cards[0].healthy) == (None, True)


def test_starts_anew_after_a_failure(tmp_path: Path) -> None:
    """When listing fails the client lets go, and the next call starts NVML again."""
    fake = FakeNvml(TWO, {("count",): 999})
    client = nvml(fake, tmp_path)
    with pytest.raises(GpuError, match="cannot list"):
        client.cards()
    fake.faults.clear()
    assert [card.uuid for card in client.cards()] == ["GPU-a", "GPU-b"]
    assert fake.calls.count("init") == 2


def test_says_where_it_looked(tmp_path: Path) -> None:
    """Without a driver the error names the driver root."""
    with pytest.raises(GpuError, match=str(tmp_path)):
        nvml(FakeNvml([], {("init",): 12}), tmp_path).cards()


def test_preloads_the_library_of_the_driver_root(tmp_path: Path) -> None:
    """The library is loaded by its absolute path, once."""
    library = tmp_path / "driver/usr/lib64/libnvidia-ml.so.1"
    library.parent.mkdir(parents=True)
    library.touch()
    loaded: list[str] = []
    client = Nvml(tmp_path / "driver", binding=FakeNvml(TWO), load=loaded.append)
    assert [card.index for card, _ in client.handles()] == [0, 1]
    client.cards()
    assert loaded == [str(library)]


def test_a_library_that_does_not_load_is_named(tmp_path: Path) -> None:
    """A broken library ends in an error that names the file."""
    library = tmp_path / "usr/lib64/libnvidia-ml.so.1"
    library.parent.mkdir(parents=True)
    library.write_text("no ELF")
    with pytest.raises(GpuError, match=str(library)):
        Nvml(tmp_path, binding=FakeNvml(TWO)).cards()


def test_a_library_that_was_exchanged_is_noticed(tmp_path: Path) -> None:
    """The process goes on with the one that it loaded, so somebody has to start it anew."""
    folder = tmp_path / "usr/lib64"
    folder.mkdir(parents=True)
    library = folder / "libnvidia-ml.so.1"
    loaded: list[str] = []
    nvml = Nvml(tmp_path, binding=FakeNvml([]), load=loaded.append, sys_root=tmp_path)
    assert not nvml.replaced
    library.touch()
    nvml.open()
    assert not nvml.replaced
    (folder / "new").touch()
    (folder / "new").rename(library)
    assert nvml.replaced
    nvml.close()
    nvml.open()
    assert loaded == [str(library)]
    assert nvml.replaced
    library.unlink()
    assert not nvml.replaced
