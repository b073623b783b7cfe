"""Pods whose containers are still on the node, as the kernel knows them: by their cgroups.

A pod that was deleted by force is gone from the API server while its containers run on.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

_CONTROLLERS: Final = ("memory", "pids", "devices")
"""Of cgroup v1; kubelet makes its folders below each."""
_ON_THE_WAY: Final = ("kube", "burstable", "besteffort")
"""Part of every folder's name between the root and a pod's, with either driver."""


class Remains:
    """Looks below the root of the node's cgroups, version 1 or 2."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, pods: Collection[str]) -> frozenset[str]:
        """Those of these pods (UIDs) that have a cgroup; all of them where that cannot be told."""
        if not pods:
            return frozenset()
        tops = [self._root / name for name in _CONTROLLERS if (self._root / name).is_dir()]
        top = self._root if (self._root / "cgroup.controllers").exists() else next(iter(tops), None)
        if top is None:
            return frozenset(pods)
        # The systemd driver writes underscores, because a dash is a level in its names.
        present = [name.replace("_", "-") for name in _pod_folders(top)]
        return frozenset(uid for uid in pods if any(name.endswith(f"pod{uid}") for name in present))


def _pod_folders(top: Path) -> Iterator[str]:
    """Names of the folders that may be pods'; what goes meanwhile is left out."""
    for _, folders, _ in os.walk(top):
        yield from (name.removesuffix(".slice") for name in folders)
        folders[:] = [name for name in folders if any(word in name for word in _ON_THE_WAY)]
