"""The card's side: the ledger of simulated cards, and whose process holds what."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from e2e.audit.model import Owner, Use

# cgroupfs: .../kubepods/burstable/pod<uid>/<id>
# systemd:  ...-pod<uid with _ for ->.slice/cri-containerd-<id>.scope
_ID = "[-_]".join(f"[0-9a-f]{{{n}}}" for n in (8, 4, 4, 4, 12))
_POD = re.compile(f"pod({_ID})")
_CONTAINER = re.compile("[0-9a-f]{64}")


def owner_of(cgroup: str) -> Owner | None:
    """Pod UID and container id from a /proc/<pid>/cgroup; None for a process of no pod."""
    for line in cgroup.splitlines():
        path = line.split(":", 2)[-1]
        pod = _POD.search(path)
        if pod:
            # What stands before the pod may be the node's own container.
            container = _CONTAINER.search(path, pod.end())
            return pod[1].replace("_", "-"), container[0] if container else ""
    return None


def parse_ledger(
    ledger: Mapping[str, Any], cgroup: Callable[[int], str | None]
) -> tuple[frozenset[str], tuple[Use, ...]]:
    """The cards there are, and what each process holds of them.

    `cgroup` returns the text of a process's cgroup file, None for a process that is gone.
    """
    uses = []
    for card in ledger["cards"]:
        for process in card["processes"]:
            data = process["bytes"] - process["context_bytes"]
            owner, why = _owner(process["pid"], cgroup)
            uses.append(Use(card["uuid"], process["pid"], data, owner, why))
    return frozenset(card["uuid"] for card in ledger["cards"]), tuple(uses)


def _owner(pid: int, cgroup: Callable[[int], str | None]) -> tuple[Owner | None, str]:
    if pid <= 0:
        return None, "it is invisible from here"
    text = cgroup(pid)
    if text is None:
        return None, "it is gone but its memory is still charged"
    owner = owner_of(text)
    return owner, "" if owner else f"it is in no pod: {text.strip().splitlines()[-1:]}"
