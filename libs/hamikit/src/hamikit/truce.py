"""Letting go of NVML while the MIG mode of a card is changed, and saying so on the node."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
import structlog

from hamikit import names
from hamikit.objects import Node

log = structlog.get_logger()

AGAIN_S: Final = 1.0
LONGEST_S: Final = 300.0
"""mig-manager gives up after a minute; whoever asks for longer is not there any more."""


class TruceApi(Protocol):
    """What we need of hamikit.cluster.Api."""

    def patch(self, path: str, body: Any) -> bytes:
        """JSON merge patch; raises ApiError, Unreachable."""


class _Pause(msgspec.Struct):
    token: str = ""


class Truce:
    """A pause that mig-manager asks for by `hami.io/mig-pause`, kept by whoever uses NVML.

    `key` is the annotation that says that we keep it. Until `connect` none is asked for.
    """

    def __init__(self, key: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._key, self._now = key, now
        self._api: TruceApi | None = None
        self._path = ""
        self._token, self._since = "", 0.0
        self._said: str | None = None
        self._changed = threading.Condition()

    def connect(self, api: TruceApi, node: str) -> None:
        """Say it to this API server from now on."""
        self._api, self._path = api, f"/api/v1/nodes/{node}"

    def observe(self, node: Node) -> None:
        """The node is this now."""
        with self._changed:
            token = _token(node.metadata.annotations.get(names.NODE_MIG_PAUSE, ""))
            if token != self._token:
                self._token, self._since = token, self._now()
            self._said = node.metadata.annotations.get(self._key)
            self._changed.notify_all()

    @property
    def asked(self) -> bool:
        """Whether there is a pause to keep; one that lasts too long is none."""
        return bool(self._token) and self._now() - self._since < LONGEST_S

    def keep(self, close: Callable[[], None], stopping: threading.Event) -> None:
        """Where a pause is asked for: `close` NVML, say so, and return when it is over.

        To be called by the thread that uses NVML, between two uses.
        """
        if not self.asked:
            return
        while self.asked and not stopping.is_set():
            close()
            token = self._token
            if self._said != token and self._say(token):
                log.info("NVML is closed for a change of MIG mode", token=token)
            with self._changed:
                if self._token == token:
                    self._changed.wait(AGAIN_S)
        self._say(None)
        log.info("NVML may be used again")

    def _say(self, token: str | None) -> bool:
        if self._api is None:
            return False
        # Slow to import, and the device plugin is to tell kubelet first.
        from hamikit.cluster import ApiError, Unreachable  # noqa: PLC0415

        try:
            self._api.patch(self._path, {"metadata": {"annotations": {self._key: token}}})
        except (ApiError, Unreachable) as error:
            log.warning("node cannot be told of a pause", error=str(error))
            return False
        self._said = token
        return True


def _token(text: str) -> str:
    try:
        return msgspec.json.decode(text, type=_Pause).token if text else ""
    except (msgspec.DecodeError, RecursionError):
        return ""
