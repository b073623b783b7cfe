"""A node's NVIDIA cards as NVML tells them, through the driver's files under the driver root."""

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pynvml
import structlog

from hamikit import names

log = structlog.get_logger()

LIBRARY: Final = "libnvidia-ml.so.1"
LIBRARY_DIRS: Final = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "lib64",
)
"""Where a driver's libraries lie below its root, by distribution."""
MIB: Final = 1024 * 1024


class GpuError(Exception):
    """NVML cannot be used; the text says what is missing and what to look at."""


@dataclass(frozen=True, slots=True)
class Card:
    """A physical card.

    `memory_mib` is None where NVML does not tell (unified memory), `numa` None where the kernel
    does not; `healthy` is False for a card that NVML lists but cannot speak to.
    """

    uuid: str
    index: int
    name: str
    memory_mib: int | None
    numa: int | None = None
    healthy: bool = True


def find_library(driver_root: Path) -> Path | None:
    """NVML's library below a driver root, or None when this root has none."""
    candidates = (driver_root / folder / LIBRARY for folder in LIBRARY_DIRS)
    return next((path for path in candidates if path.exists()), None)


class Nvml:
    """One NVML client for the process; safe to use from several threads.

    `binding` is pynvml or a stand-in for it. `close` lets the driver change modes (MIG) and is
    undone by the next use.
    """

    def __init__(
        self,
        driver_root: Path = Path(names.DRIVER_ROOT),
        *,
        binding: Any = pynvml,
        load: Callable[[str], Any] = ctypes.CDLL,
        sys_root: Path = Path("/sys"),
    ) -> None:
        self._driver_root, self._sys_root = driver_root, sys_root
        self._binding, self._load = binding, load
        self._lock = threading.Lock()
        self._open = False
        self._loaded: tuple[int, int] | None = None

    def open(self) -> Any:
        """The initialised binding, for calls that this class does not wrap.

        Raises:
            GpuError: no library, or NVML refuses to start.
        """
        with self._lock:
            if not self._open:
                self._preload()
                try:
                    self._binding.nvmlInit()
                except self._binding.NVMLError as error:
                    raise GpuError(
                        f"NVML does not start: {error}; looked for {LIBRARY} below "
                        f"{self._driver_root} (DRIVER_ROOT), is the driver installed and loaded?"
                    ) from error
                self._open = True
        return self._binding

    @property
    def replaced(self) -> bool:
        """Whether the driver's library is another file than the one that this process loaded.

        A process keeps the library that it loaded first, and NVML refuses one that does not fit
        the kernel's part of the driver.
        """
        path = find_library(self._driver_root)
        return None not in (path, self._loaded) and _identity(path) != self._loaded

    def close(self) -> None:
        """Let go of the driver; harmless when not open."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            try:
                self._binding.nvmlShutdown()
            except self._binding.NVMLError as error:
                log.warning("NVML does not shut down", error=str(error))

    def cards(self) -> tuple[Card, ...]:
        """Every card that NVML can name, in NVML's order; what cannot be named is left out.

        Raises:
            GpuError: NVML cannot be used at all. The next call starts it anew.
        """
        nvml = self.open()
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            self.close()
            raise GpuError(
                f"NVML cannot list the cards: {error}; see the driver's kernel log"
            ) from error
        found = (self._card(index) for index in range(count))
        return tuple(card for card in found if card is not None)

    def handles(self) -> Sequence[tuple[Card, Any]]:
        """Every healthy card with its NVML handle, for further questions.

        Raises:
            GpuError: as `cards`.
        """
        nvml = self._binding
        pairs: list[tuple[Card, Any]] = []
        for card in self.cards():
            try:
                pairs.append((card, nvml.nvmlDeviceGetHandleByUUID(card.uuid)))
            except nvml.NVMLError as error:
                log.debug("card has no handle", uuid=card.uuid, error=str(error))
        return pairs

    def _preload(self) -> None:
        # pynvml asks the loader for the bare name; a library of that soname that is loaded already
        # answers it, whatever the loader's search path is.
        path = find_library(self._driver_root)
        if path is None or self._loaded is not None:
            return
        try:
            self._load(str(path))
        except OSError as error:
            raise GpuError(f"{path} cannot be loaded: {error}") from error
        self._loaded = _identity(path)

    def _card(self, index: int) -> Card | None:
        nvml = self._binding
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
            name = _text(nvml.nvmlDeviceGetName(handle))
        except nvml.NVMLError as error:
            log.debug("card cannot be named", index=index, error=str(error))
            return None
        memory: int | None = None
        healthy = True
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle).total // MIB
        except nvml.NVMLError as error:
            healthy = error.value == nvml.NVML_ERROR_NOT_SUPPORTED
            if not healthy:
                log.debug("card does not answer", uuid=uuid, error=str(error))
        return Card(uuid, index, name, memory, self._numa(handle), healthy)

    def _numa(self, handle: Any) -> int | None:
        nvml = self._binding
        try:
            bus_id = _text(nvml.nvmlDeviceGetPciInfo(handle).busId)
        except nvml.NVMLError:
            return None  # not a PCI device
        # NVML writes the PCI domain with eight digits, sysfs with four.
        path = self._sys_root / "bus/pci/devices" / bus_id.lower().removeprefix("0000")
        try:
            node = int((path / "numa_node").read_text())
        except (OSError, ValueError):
            return None
        return node if node >= 0 else None


def _identity(path: Path | None) -> tuple[int, int] | None:
    try:
        return None if path is None else (path.stat().st_dev, path.stat().st_ino)
    except OSError:
        return None  # gone meanwhile


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
