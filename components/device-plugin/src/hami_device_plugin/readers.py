"""Whether a file that we put in place was read: from then on the runtime knows what it says."""

import asyncio
from collections.abc import Collection
from pathlib import Path

import structlog
from asyncinotify import Inotify, Mask

from hami_device_plugin.broadcast import Broadcast

log = structlog.get_logger()

# containerd hears of a new file by inotify and reads it within milliseconds, on a busy node later;
# a container that comes before that costs a retry of 10 s and more. Where nobody reads by himself
# (a runtime that looks only when it makes a container) to wait for long would be in vain.
PATIENT_S, HASTY_S = 0.5, 0.02


class Readers:
    """Watches single files, each until it was read once; the kernel counts our own reading too."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, patient_s: float = PATIENT_S) -> None:
        self._patient_s = patient_s
        self._inotify = Inotify()
        self._news = Broadcast(loop)
        self._unread: dict[object, str] = {}
        self._patience_s = HASTY_S

    def expect(self, name: str, path: Path) -> None:
        """Watch a file from now on, whatever it is renamed to; from any thread."""
        watch: object = path
        try:
            watch = self._inotify.add_watch(path, Mask.CLOSE_NOWRITE | Mask.ONESHOT)
        except (OSError, ValueError) as error:  # ValueError: we are about to end
            log.warning("nobody tells when a file is read", path=str(path), error=str(error))
        self._unread[watch] = name

    async def run(self) -> None:
        """Take note of what is read, until cancelled."""
        with self._inotify:
            async for event in self._inotify:
                # The last event of a file that was removed has its watch, too.
                self._unread.pop(event.watch, None)
                if Mask.CLOSE_NOWRITE in event.mask:
                    self._patience_s = self._patient_s
                self._news.announce()

    async def read(self, names: Collection[str]) -> None:
        """Wait until somebody has read the files of these names, or long enough."""
        try:
            async with asyncio.timeout(self._patience_s):
                while self._pending(names):
                    waiter = self._news.waiter()
                    if self._pending(names):
                        await waiter.wait()
        except TimeoutError:
            self._patience_s = HASTY_S
            for watch in self._pending(names):
                self._unread.pop(watch, None)

    def _pending(self, names: Collection[str]) -> list[object]:
        return [watch for watch, name in list(self._unread.items()) if name in names]
