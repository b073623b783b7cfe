"""Before a container starts: try until its files are in place, or until it is refused."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection

from hami_device_plugin.broadcast import Broadcast, heard
from hami_device_plugin.preparer import Preparer
from hami_device_plugin.refusal import NoGrant, PodUnknown, Refusal
from hamikit import names
from hamikit.objects import Pod

# How soon something is looked at again that nobody announces: a file, a lock of another process.
LOOK_AGAIN_S = 0.25
# How long the informer may lag before the API server is asked directly.
PATIENCE_S = 1.0


class Prestart:
    """Attempts a preparation until it is done, refused for good, or the time is over.

    `read` returns when the runtime knows the specs of these names.
    """

    def __init__(
        self,
        preparer: Preparer,
        news: Broadcast,
        fetch: Callable[[str], Pod | None],
        read: Callable[[Collection[str]], Awaitable[None]],
        *,
        limit_s: float = 25.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._preparer, self._news, self._fetch, self._read = preparer, news, fetch, read
        self._limit_s, self._now = limit_s, now

    async def run(self, ids: Collection[str]) -> None:
        """Have everything in place for the containers with these ids.

        Raises:
            Refusal: it may not start.
        """
        begin = self._now()
        fetched = False
        while True:
            waiter = self._news.waiter()
            try:
                written = await self._preparer.in_worker(lambda: self._preparer.attempt(ids))
            except Refusal as refusal:
                waited = self._now() - begin
                if not refusal.late or waited >= self._limit_s:
                    raise
                if isinstance(refusal, PodUnknown) and waited >= PATIENCE_S and not fetched:
                    fetched = True
                    await self._ask_server(refusal.uid)
                    continue
                await heard(waiter, LOOK_AGAIN_S)
                continue
            if written:
                await self._read(written)
            return

    async def _ask_server(self, uid: str) -> None:
        """Ask once for a pod that the informer does not tell of; it may be none of ours."""
        pod = await asyncio.to_thread(self._fetch, uid)
        if pod is None:
            return
        label = pod.metadata.labels.get(names.LABEL_DEVICE_POD)
        if label != names.LABEL_DEVICE_POD_VALUE:
            text = (
                f"pod {pod.key} holds a device but has no label {names.LABEL_DEVICE_POD}: HAMi's "
                "webhook did not admit it, so nobody accounts for it (schedulerName is "
                f"{pod.spec.scheduler_name!r}; pods with another one, with label "
                f"{names.LABEL_WEBHOOK}: {names.LABEL_WEBHOOK_IGNORE} and in namespaces that the "
                "webhook leaves out are none of its business); create it anew without these"
            )
            self._preparer.report(pod, text)
            raise NoGrant(text)
        self._preparer.learn(pod)
