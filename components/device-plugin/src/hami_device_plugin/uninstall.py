"""Takes off a node what the plugin left on it: each pod's share once the pod is gone."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.hostfiles import HostFiles
from hami_device_plugin.sweep import GRACE_S, sweep
from hamikit import names
from hamikit.objects import Node, Pod

T = TypeVar("T")
OURS = (
    names.NODE_REGISTER,
    names.NODE_SCORE,
    names.NODE_BINDING,
    names.NODE_BINDING_REASON,
    names.NODE_CARD_ACCESS,
    names.NODE_PAUSED,
)


class UninstallApi(Protocol):
    """What we need of hamikit.cluster.Api."""

    def get(self, path: str, kind: type[T], query: dict[str, str | int] | None = None) -> T:
        """GET and decode."""

    def patch(self, path: str, body: Any) -> bytes:
        """JSON merge patch."""


class _PodList(msgspec.Struct):
    items: list[Pod]


@dataclass(frozen=True, slots=True)
class _Present:
    """The pods of one look."""

    uids: frozenset[str]

    def complete(self) -> bool:
        return True

    def living(self) -> frozenset[str]:
        return self.uids


class Uninstaller:
    """`look` removes what can be removed now and says what stays and why."""

    def __init__(
        self,
        api: UninstallApi,
        node: str,
        files: HostFiles,
        cdi: CdiFiles,
        *,
        sockets: Path,
        now: Callable[[], float],
    ) -> None:
        self._api, self._node = api, node
        self._files, self._cdi, self._sockets, self._now = files, cdi, sockets, now

    def look(self) -> list[str]:
        """One step; a line for each pod whose share stays.

        Raises:
            ApiError, Unreachable: the API server said no, or nothing.
        """
        self._clear_node()
        query: dict[str, str | int] = {
            "labelSelector": f"{names.LABEL_DEVICE_POD}={names.LABEL_DEVICE_POD_VALUE}",
            "fieldSelector": f"spec.nodeName={self._node}",
        }
        found = self._api.get("/api/v1/pods", _PodList, query).items
        pods = {pod.metadata.uid: pod for pod in found if not pod.terminal}
        admitted = {grant.uid: grant for grant in self._files.load_grants()}
        # Nobody admits pods any more, so nothing is too young to go.
        later = self._now() + GRACE_S + 1
        sweep(admitted, _Present(frozenset(pods)), self._files, self._cdi, lambda: later)
        staying = self._files.known_pods()
        if not staying:
            self._files.remove_folders()
            self._cdi.publish(None)
            shutil.rmtree(self._sockets, ignore_errors=True)
        return [_why(uid, pods.get(uid)) for uid in sorted(staying)]

    def _clear_node(self) -> None:
        path = f"/api/v1/nodes/{self._node}"
        present = self._api.get(path, Node).metadata.annotations
        ours = {name: None for name in OURS if name in present}
        if ours:
            self._api.patch(path, {"metadata": {"annotations": ours}})


def _why(uid: str, pod: Pod | None) -> str:
    if pod is not None:
        return f"limits of pod {pod.key} stay: it runs with them, until it ends or is deleted"
    return f"limits of pod {uid} stay: it is gone, but a process of it still runs with them"
