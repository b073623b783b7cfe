"""Wakes everything on the event loop that waits for news, from any thread."""

import asyncio


class Broadcast:
    """News without content: who hears it looks for himself.

    Take `waiter()` before looking at the state and await it afterwards, so no news is missed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()

    def waiter(self) -> asyncio.Event:
        """An event that the next news sets."""
        return self._event

    def announce(self) -> None:
        """There is news; may be called from any thread, also when the loop has ended."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


async def heard(waiter: asyncio.Event, timeout_s: float) -> bool:
    """Wait for news for so long; whether there was any."""
    # Not wait_for: before Python 3.12 it drops a cancellation that comes together with the news,
    # and who is cancelled would go on for ever.
    try:
        async with asyncio.timeout(timeout_s):
            await waiter.wait()
    except TimeoutError:
        return False
    return True
