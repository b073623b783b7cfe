"""Requests that wait for nothing, answered by the very thread that reads them.

In a thread of its own such an answer only waits for its turn at the interpreter; measured, it costs
a third less CPU without.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from waitress.channel import HTTPChannel

AtOnce = Callable[[str], bool]
"""Whether a request with this path can be answered at once; asked in the reading thread."""


class Dispatcher(Protocol):
    """Who runs requests in threads of its own."""

    def add_task(self, channel: HTTPChannel, /) -> None:
        """Answer a channel's first request some time."""

    def shutdown(self) -> object:
        """End the threads."""


class _Inline:
    """Runs requests in the thread that reads them, others where they ran before."""

    def __init__(self, others: Dispatcher, at_once: AtOnce) -> None:
        self._others, self._at_once = others, at_once
        self._due: list[HTTPChannel] = []
        self._reader = 0

    def add_task(self, channel: HTTPChannel) -> None:
        """Take a note: the channel's lock is held now, and to answer it is needed."""
        request = channel.requests[0]
        # A thread that has answered one request hands on the next of its connection.
        if self.reading() and not request.error and self._at_once(request.path):
            self._due.append(channel)
        else:
            self._others.add_task(channel)

    def reading(self) -> bool:
        """Whether we are in the thread that reads."""
        return threading.get_ident() == self._reader

    def begin(self) -> None:
        """This is the thread that reads."""
        self._reader = threading.get_ident()

    def run(self) -> None:
        """Answer what is due; a channel with another request comes again."""
        while self._due:
            self._due.pop().service()

    def shutdown(self) -> None:
        """End the threads of the others."""
        self._others.shutdown()


def answer_inline(server: Any, at_once: AtOnce) -> None:
    """Let the thread that reads for a waitress server, not yet running, answer some requests.

    The server's `outbuf_high_watermark` has to be beyond any answer: who reads must not wait until
    a client takes what was written before.
    """
    inline = _Inline(server.task_dispatcher, at_once)

    class Channel(server.channel_class):  # type: ignore[misc]
        def received(self, data: bytes) -> bool:
            inline.begin()
            taken: bool = super().received(data)
            inline.run()
            if self.connected and self.total_outbufs_len:
                self.handle_write()
            return taken

    wake = server.pull_trigger
    server.task_dispatcher, server.channel_class = inline, Channel
    # What wakes the thread that reads is not needed in that very thread.
    server.pull_trigger = lambda: None if inline.reading() else wake()
