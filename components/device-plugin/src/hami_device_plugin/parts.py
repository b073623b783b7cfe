"""What the preparation of containers works with."""

from collections.abc import Callable
from dataclasses import dataclass

from hami_device_plugin.access import CardAccess
from hami_device_plugin.answer import CdiTelling
from hami_device_plugin.carving import Capabilities
from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.hostfiles import HostFiles
from hami_device_plugin.identity import Checkpoint
from hami_device_plugin.mig import Division
from hami_device_plugin.pods import Pods
from hami_device_plugin.settings import Settings
from hami_device_plugin.stock import Stock
from hamikit.objects import Pod


@dataclass(frozen=True, slots=True)
class Parts:
    """What the preparation works with."""

    node: str
    settings: Callable[[], Settings]
    stock: Stock
    read_checkpoint: Callable[[], Checkpoint]
    pods: Pods
    files: HostFiles
    cdi: CdiFiles
    access: CardAccess
    report: Callable[[Pod, str, str], None]
    """Writes a warning event: pod, reason, text."""
    cdi_telling: CdiTelling
    divisions: Callable[[str], Division | None]
    """What MIG can make of a card."""
    capabilities: Capabilities
