"""The TLS front: ends TLS and relays bytes to the application's unix socket.

It never waits for one client: each connection is a task of its own, and the number of connections,
the time for a handshake and the time without a byte are limited.
"""

import asyncio
import contextlib
import functools
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

_BLOCK = 65536
# After an answer's last byte a connection counts as busy for this long when we end.
_QUIET_S = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process bears.

    `idle_s` must be longer than the 90 s after which Go's client closes an idle connection: it
    cannot repeat a POST on a connection that we closed under it.
    """

    handshake_s: float = 5.0
    idle_s: float = 120.0
    connections: int = 256


class _Link:
    """One client's connection and what it did last."""

    def __init__(self, now: float) -> None:
        self.last = now
        self.answered = False
        self.waiting = False

    def busy(self, now: float) -> bool:
        """Whether an answer is due or just on its way."""
        return self.waiting or now - self.last < _QUIET_S


def listen(host: str, port: int) -> socket.socket:
    """A listener for the event loop; OSError when the port is taken."""
    listener = socket.create_server((host, port), backlog=512)
    listener.setblocking(False)
    # Inherited by what is accepted; asyncio sets it only on sockets that it made itself. Without it
    # an answer in two parts waits for the client's delayed acknowledgement: 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Front:
    """Listens, ends TLS with `context`, relays to the unix socket `upstream`."""

    def __init__(
        self,
        context: ssl.SSLContext,
        upstream: str,
        *,
        limits: Limits | None = None,
        now: Callable[[], float] = time.monotonic,
        count: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._context, self._upstream, self._now, self._count = context, upstream, now, count
        self._limits = limits or Limits()
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._own: list[asyncio.Task[None]] = []
        self._listener: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port in use, 0 when not listening."""
        return int(self._listener.getsockname()[1]) if self._listener else 0

    def missing(self) -> str | None:
        """What is missing until clients are served; None when they are."""
        return None if self._listener else "not listening"

    def start(self, host: str, port: int) -> None:
        """Listen from now on; OSError when the port is taken. Call it in the event loop."""
        listener = listen(host, port)
        self._listener = listener
        self._own = [
            asyncio.create_task(self._accept(listener)),
            asyncio.create_task(self._sweeps()),
        ]

    async def drain(self, finish_s: float) -> None:
        """Accept nobody new, let answers that are due go out for at most `finish_s`, then end."""
        for task in self._own:
            task.cancel()
        await asyncio.gather(*self._own, return_exceptions=True)
        if self._listener:
            self._listener.close()
            self._listener = None
        deadline = self._now() + finish_s
        # Time alone ends being busy, so there is no event to wait for.
        while (  # noqa: ASYNC110
            any(link.busy(self._now()) for link in self._links) and self._now() < deadline
        ):
            await asyncio.sleep(_QUIET_S / 10)
        open_tasks = list(self._links.values())
        for task in open_tasks:
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("accept failed, trying on", error=str(error))
                await asyncio.sleep(0.1)
                continue
            if len(self._links) >= self._limits.connections:
                self._evict()
            link = _Link(self._now())
            self._links[link] = asyncio.create_task(self._serve(link, client))
            self._links[link].add_done_callback(functools.partial(self._forget, link))
            self._count(len(self._links))

    def _forget(self, link: _Link, _task: asyncio.Task[None]) -> None:
        self._links.pop(link, None)
        self._count(len(self._links))

    def _evict(self) -> None:
        """Make room: who never got an answer goes first, then who has been silent longest."""
        victim = min(self._links, key=lambda link: (link.answered, link.last))
        self._links.pop(victim).cancel()

    async def _sweeps(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._limits.idle_s / 4))
            self.sweep()

    def sweep(self) -> None:
        """End the connections that have been silent for too long."""
        for link, task in self._links.items():
            if self._now() - link.last > self._limits.idle_s:
                task.cancel()

    async def _serve(self, link: _Link, client: socket.socket) -> None:
        # OSError covers TLS errors, resets and the handshake's time limit: the client's loss.
        with contextlib.suppress(OSError):
            reader, writer = await self._handshake(client)
            with contextlib.closing(writer):
                first = await reader.read(_BLOCK)
                if first:
                    await self._relay(link, first, reader, writer)

    async def _handshake(
        self, client: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_BLOCK)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            client,
            ssl=self._context,
            ssl_handshake_timeout=self._limits.handshake_s,
            ssl_shutdown_timeout=2.0,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _relay(
        self,
        link: _Link,
        first: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Both directions until one side ends; a silent client never gets as far as a backend."""
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        except OSError as error:
            log.warning("backend does not answer", socket=self._upstream, error=str(error))
            return
        with contextlib.closing(up_writer):
            pumps = (
                asyncio.create_task(self._pump(link, reader, up_writer, first)),
                asyncio.create_task(self._pump(link, up_reader, writer, None)),
            )
            try:
                done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in done:
                    pump.result()
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self,
        link: _Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        first: bytes | None,
    ) -> None:
        """One direction; `first` marks the client's, and is what it has sent already."""
        data = first or await reader.read(_BLOCK)
        while data:
            link.last = self._now()
            link.waiting = first is not None
            link.answered = link.answered or first is None
            writer.write(data)
            await writer.drain()
            data = await reader.read(_BLOCK)
