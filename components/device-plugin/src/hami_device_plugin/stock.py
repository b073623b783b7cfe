"""The node's cards and slots as of now."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from hami_device_plugin import identity, inventory
from hami_device_plugin.afresh import Forgotten
from hamikit.codec import RegisteredDevice
from hamikit.objects import Node

log = structlog.get_logger()

FORGOTTEN_LOOKS = 1


class CheckpointFile:
    """kubelet's checkpoint on disk; kubelet replaces the file as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> identity.Checkpoint:
        """What it says now; empty when kubelet has not written one yet.

        Raises:
            IdentityError: unreadable.
        """
        try:
            return identity.parse(self._path.read_bytes())
        except FileNotFoundError:
            return identity.Checkpoint()
        except OSError as error:
            raise identity.IdentityError(
                f"kubelet's checkpoint {self._path} cannot be read: {error.strerror}"
            ) from error


class Memory:
    """Whether kubelet remembers us.

    Two plugins that start in the same moment can come to this: kubelet listens to both, takes the
    later one for the plugin, and forgets the slots when that one goes (kubelet 1.34). `ask` reads
    the node from the API server, None when that does not answer.
    """

    def __init__(self, resource: str, ask: Callable[[], Node | None]) -> None:
        self._resource, self._ask, self._looks = resource, ask, 0

    def check(self, seen: Node, *, offers: bool) -> None:
        """Take account of a look at the node; `offers` when kubelet listens to healthy slots.

        Raises:
            Forgotten: the node has none of the slots that kubelet hears of.
        """
        self._looks = self._looks + 1 if offers and self._offers_none(seen) else 0
        # Once is no proof: kubelet tells of a new plugin some seconds after it has come. And what
        # a watch has told may be old: an API server that is away tells nothing new.
        if self._looks <= FORGOTTEN_LOOKS:
            return
        now = self._ask()
        if now is not None and self._offers_none(now):
            raise Forgotten(
                f"kubelet listens but offers no {self._resource}: starting afresh, so that it "
                "takes this plugin anew"
            )

    def _offers_none(self, node: Node) -> bool:
        return str(node.status.allocatable.get(self._resource, "")) == "0"


class Stock:
    """Cards as the scan found them, and the slots that follow from them and from what is held."""

    def __init__(self, resource: str, read_checkpoint: Callable[[], identity.Checkpoint]) -> None:
        self.resource = resource
        self._read_checkpoint = read_checkpoint
        self._devices: tuple[RegisteredDevice, ...] | None = None
        self._checkpoint = identity.Checkpoint()
        self._lock = threading.Lock()
        self.by_card = False
        """Whether ids stand for cards, as HAMi's do; else they stand for none."""

    @property
    def devices(self) -> tuple[RegisteredDevice, ...] | None:
        """The cards as announced; None until the first scan is through."""
        return self._devices

    def cards(self) -> Mapping[str, RegisteredDevice] | None:
        """The cards by UUID; None until the first scan is through."""
        return None if self._devices is None else {d.id: d for d in self._devices}

    def update(self, devices: tuple[RegisteredDevice, ...]) -> bool:
        """Take over what a scan found; whether that is news."""
        with self._lock:
            news = devices != self._devices
            self._devices = devices
        return news

    def held(self) -> frozenset[str]:
        """The ids that containers hold; the last known ones while the checkpoint is unreadable."""
        with self._lock:
            try:
                self._checkpoint = self._read_checkpoint()
            except identity.IdentityError as error:
                log.warning("checkpoint unreadable, keeping what was held", error=str(error))
            return self._checkpoint.ids_of(self.resource)

    def slots(self) -> dict[str, bool]:
        """Every slot id and whether it is healthy.

        Before the first scan: what kubelet knew when this plugin's predecessor ended, because a
        scan may take seconds and every moment without slots costs pods.
        """
        held = self.held()
        if self._devices is None:
            before = self._checkpoint.registered_of(self.resource)
            return dict.fromkeys(sorted(held | before), True)
        form = inventory.card_slots if self.by_card else inventory.slots
        return form(self._devices, held)
