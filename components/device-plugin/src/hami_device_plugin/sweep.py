"""What pods that are gone left behind on this node."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.grant import PodGrant
from hami_device_plugin.hostfiles import HostFiles

log = structlog.get_logger()

# What is younger may belong to a pod that we are about to hear of.
GRACE_S = 60.0


class Existing(Protocol):
    """Which pods there are."""

    @property
    def complete(self) -> Callable[[], bool]:
        """Whether all are known."""

    def living(self) -> frozenset[str]:
        """UIDs of those that have not ended."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """UIDs of pods to forget and names of CDI specs to remove."""

    pods: frozenset[str]
    specs: frozenset[str]


def leftovers(
    grants: Mapping[str, PodGrant],
    pods_on_disk: Mapping[str, float],
    specs_on_disk: Mapping[str, float],
    living: Collection[str],
    old: float,
) -> Leftovers:
    """What belongs to no living pod.

    An admitted pod may be forgotten as soon as it is gone; files of pods that we know nothing of,
    and specs that no grant names, when they were written before `old` (Unix seconds).
    """
    gone = {uid for uid in grants if uid not in living}
    gone |= {
        uid
        for uid, written in pods_on_disk.items()
        if uid not in living and uid not in grants and written < old
    }
    kept = {
        c.cdi_name for uid, grant in grants.items() if uid not in gone for c in grant.containers
    }
    swept = {
        c.cdi_name
        for uid in gone & grants.keys()
        for c in grants[uid].containers
        if c.cdi_name in specs_on_disk
    }
    orphans = {
        name for name, written in specs_on_disk.items() if name not in kept and written < old
    }
    return Leftovers(frozenset(gone), frozenset(swept | orphans))


def tidy(
    admitted: dict[str, PodGrant],
    pods: Existing,
    files: HostFiles,
    cdi: CdiFiles,
    now: Callable[[], float],
) -> None:
    """Sweep, and take back what containers and earlier versions use up of the disk."""
    try:
        files.trim_usage()
        sweep(admitted, pods, files, cdi, now)
        files.remove_unused_versions({grant.library for grant in admitted.values()}, now())
    except OSError as error:
        log.warning("sweep failed", error=str(error))


def sweep(
    admitted: dict[str, PodGrant],
    pods: Existing,
    files: HostFiles,
    cdi: CdiFiles,
    now: Callable[[], float],
) -> bool:
    """Remove what is left over; whether there was anything. Runs where the account is safe.

    A pod whose processes still hold their locks keeps everything: its container outlives it.
    """
    if not pods.complete():
        return False
    old = now() - GRACE_S
    files.remove_halves(old)
    cdi.remove_halves(old)
    on_disk = files.known_pods()
    living = set(pods.living())
    candidates = (admitted.keys() | on_disk.keys()) - living
    # Only for pods that we know nothing of is there need to look through all folders.
    containers = {uid: grant.names for uid, grant in admitted.items()}
    living |= {uid for uid in candidates if files.in_use(uid, containers.get(uid))}
    found = leftovers(admitted, on_disk, cdi.ours(), living, old)
    for name in found.specs:
        cdi.remove(name)
    for uid in found.pods:
        files.forget(uid, containers.get(uid))
        admitted.pop(uid, None)
    if found.pods or found.specs:
        log.info("swept", pods=len(found.pods), specs=len(found.specs))
    return bool(found.pods or found.specs)
