"""Behaviour of hami_webhook.tls: many clients, good and bad, in front of one application."""

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from hami_webhook.app import MAX_BODY, backend, create_app
from hami_webhook.certificate import LiveCertificate
from hami_webhook.installer import write_files
from hami_webhook.issuer import issue
from hami_webhook.metrics import Metrics
from hami_webhook.review import decide
from hami_webhook.rules import Rules
from hami_webhook.tls import Front, Limits, _Link, listen

HOST = "hami-webhook.hami-system.svc"
POD = {"spec": {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}}
BODY = json.dumps(
    {"apiVersion": "admission.k8s.io/v1", "request": {"uid": "u", "object": POD}}
).encode()
DEADLINE_S = 20


def test_no_part_of_an_answer_waits_for_an_acknowledgement():
    """The connections that are accepted have no Nagle: it cost 40 ms an answer, now and then."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


class World:
    """A front and its backend on loopback, with a clock that only the test moves."""

    def __init__(self, folder, limits, decide=decide):
        self.bundle = issue(HOST, datetime.now(UTC))
        self.folder, self.clock, self.counts = folder, 0.0, []
        write_files(str(folder / "tls"), self.bundle)
        self.certificate = LiveCertificate(str(folder / "tls"))
        assert self.certificate.refresh()
        app = create_app(Rules, Metrics(CollectorRegistry()), decide=decide)
        self.socket = str(folder / "s")
        self.closing = threading.Event()
        backend(app, self.socket, connections=limits.connections, closing=self.closing)
        self.front = Front(
            self.certificate.context,
            self.socket,
            limits=limits,
            now=lambda: self.clock,
            count=self.counts.append,
        )
        self.front.start("127.0.0.1", 0)

    async def connect(self, bundle=None, **options):
        """A TLS client that verifies us by name."""
        context = ssl.create_default_context(cadata=(bundle or self.bundle).authorities.decode())
        for name, value in options.items():
            setattr(context, name, value)
        return await asyncio.open_connection(
            "127.0.0.1", self.front.port, ssl=context, server_hostname=HOST
        )

    async def plain(self):
        """A client that speaks no TLS."""
        return await asyncio.open_connection("127.0.0.1", self.front.port)


async def ask(connection, body=BODY):
    """One question on an open connection; status and body of the answer."""
    reader, writer = connection
    head = (
        f"POST /mutate HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    return await answer(reader)


async def answer(reader):
    """Status and body of the next answer."""
    headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(headers.split("content-length: ")[1].split("\r\n")[0])
    return int(headers.split()[1]), await reader.readexactly(length)


async def ended(reader):
    """Wait until the other side has closed."""
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass


async def refused(port):
    """Connect until somebody says no."""
    while True:
        peer = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port))
        peer.close()


@pytest.fixture
def run(tmp_path):
    """Run a test's coroutine in a world of its own, with a deadline."""

    def start(scenario, limits=None, **more):
        async def whole():
            world = World(tmp_path, limits or Limits(), **more)
            try:
                await asyncio.wait_for(scenario(world), DEADLINE_S)
            finally:
                await world.front.drain(0)

        asyncio.run(whole())

    return start


def test_questions_are_answered_over_verified_tls(run):
    """Several on one connection, as the API server does it."""

    async def scenario(world):
        assert world.front.missing() is None
        connection = await world.connect()
        for _ in range(3):
            status, body = await ask(connection)
            assert (status, json.loads(body)["response"]["allowed"]) == (200, True)
        assert connection[1].get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")

    run(scenario)


def test_silent_clients_stall_nobody(run):
    """200 that never say hello and 50 that shake hands and fall silent."""

    async def scenario(world):
        silent = [await world.plain() for _ in range(200)]
        greeted = [await world.connect() for _ in range(50)]
        asking = [await world.connect() for _ in range(5)]
        for _ in range(4):
            for status, _ in await asyncio.gather(*map(ask, asking)):
                assert status == 200
        assert world.counts[-1] == len(silent) + len(greeted) + len(asking)

    run(scenario, Limits(handshake_s=60, connections=1000))


def test_a_thousand_silent_clients_are_less_than_one_that_asks(run):
    """With the shipped limits: those that never asked make room, who asks is answered."""

    async def scenario(world):
        asking = [await world.connect() for _ in range(16)]
        silent = []
        for _ in range(10):
            silent += [await world.plain() for _ in range(100)]
            for status, _ in await asyncio.gather(*map(ask, asking)):
                assert status == 200
            assert (await ask(await world.connect()))[0] == 200
        assert len(silent) == 1000
        assert max(world.counts) <= Limits().connections

    run(scenario)


HEAD = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "text",
    [
        b"\x00" * 5000 + b"\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        HEAD + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n",
    ],
)
def test_a_malformed_question_harms_its_sender_only(run, text):
    """It gets an error or is cut off; the next client is served."""

    async def scenario(world):
        reader, writer = await world.connect()
        with contextlib.suppress(ConnectionError):
            writer.write(text)
            await writer.drain()
        with contextlib.suppress(ConnectionError):
            line = await reader.readline()
            assert line == b"" or line.split()[1][:1] in (b"4", b"5")
        assert (await ask(await world.connect()))[0] == 200

    run(scenario)


def test_a_slow_question_is_answered_in_its_own_time(run):
    """Byte by byte, while others go by."""

    async def scenario(world):
        reader, writer = await world.connect()
        text = HEAD + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        quick = await world.connect()
        for index in range(len(text)):
            writer.write(text[index : index + 1])
            await writer.drain()
            if index % 50 == 0:
                assert (await ask(quick))[0] == 200
        assert (await answer(reader))[0] == 200

    run(scenario)


def test_at_the_end_every_answer_ends_its_connection(run):
    """So a client does not send another question into one that is about to go."""

    async def scenario(world):
        reader, writer = await world.connect()
        assert (await ask((reader, writer)))[0] == 200
        world.closing.set()
        writer.write(HEAD + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        said = await reader.read()
        assert said.startswith(b"HTTP/1.1 200")
        assert b"Connection: close\r\n" in said
        assert b'"allowed":true' in said

    run(scenario)


def test_half_a_question_stalls_nobody(run):
    """A slow body waits in the backend's memory, not in one of its threads."""

    async def scenario(world):
        slow = [await world.connect() for _ in range(20)]
        for _, writer in slow:
            writer.write(b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert (await ask(await world.connect()))[0] == 200

    run(scenario)


def test_a_handshake_that_does_not_come_is_given_up(run):
    """After its time limit the connection is closed."""

    async def scenario(world):
        reader, _ = await world.plain()
        await ended(reader)

    run(scenario, Limits(handshake_s=0.05))


def test_a_connection_is_closed_when_it_was_idle_for_too_long(run):
    """Counted from its last byte, in either direction."""

    async def scenario(world):
        used, unused = await world.connect(), await world.connect()
        world.clock = 100.0
        assert (await ask(used))[0] == 200
        world.clock = 125.0
        world.front.sweep()
        await ended(unused[0])
        assert (await ask(used))[0] == 200
        world.clock = 300.0
        world.front.sweep()
        await ended(used[0])

    run(scenario)


def test_a_full_house_gives_up_those_that_never_asked(run):
    """So a crowd of silent clients cannot push the API server out."""

    async def scenario(world):
        good = await world.connect()
        assert (await ask(good))[0] == 200
        crowd = [await world.plain() for _ in range(30)]
        await ended(crowd[0][0])
        late = await world.connect()
        assert (await ask(late))[0] == 200
        assert (await ask(good))[0] == 200
        assert max(world.counts) <= 8

    run(scenario, Limits(handshake_s=60, connections=8))


def test_who_leaves_is_no_longer_counted(run):
    """Otherwise the house would fill with clients long gone."""

    async def scenario(world):
        empty = asyncio.Event()
        world.front._count = lambda number: None if number else empty.set()
        _, writer = await world.connect()
        writer.close()
        await empty.wait()

    run(scenario)


def test_a_failed_accept_is_tried_again(run):
    """Out of file descriptors for a moment: who comes afterwards is served."""

    async def scenario(world):
        loop = asyncio.get_running_loop()
        accept, failures = loop.sock_accept, [OSError(24, "Too many open files")]

        async def scarce(listener):
            if failures:
                raise failures.pop()
            return await accept(listener)

        loop.sock_accept = scarce
        for _ in range(2):
            assert (await ask(await world.connect()))[0] == 200
        assert failures == []

    run(scenario)


def test_of_those_that_never_asked_the_longest_silent_goes(run):
    """Who has only just come, such as the API server before its first question, stays."""

    async def scenario(world):
        first = await world.connect()
        world.clock = 1.0
        second = await world.connect()
        world.clock = 2.0
        third = await world.connect()
        await ended(first[0])
        assert (await ask(second))[0] == 200
        assert (await ask(third))[0] == 200

    run(scenario, Limits(connections=2))


def test_an_answer_that_has_just_gone_out_keeps_us_for_a_moment():
    """Its last bytes may still be on their way through TLS."""
    link = _Link(5.0)
    assert link.busy(5.1)
    assert not link.busy(5.5)


def test_a_new_certificate_is_shown_without_a_restart(run):
    """Open connections go on, new ones see the new one."""

    async def scenario(world):
        old = await world.connect()
        new = issue(HOST, datetime.now(UTC))
        write_files(str(world.folder / "tls"), new)
        assert world.certificate.refresh()
        assert (await ask(await world.connect(new)))[0] == 200
        assert (await ask(old))[0] == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await world.connect(world.bundle)

    run(scenario)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_who_speaks_no_tls_or_an_old_one_is_dropped(run):
    """Nothing of it reaches the application."""

    async def scenario(world):
        reader, writer = await world.plain()
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await ended(reader)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await world.connect(
                minimum_version=ssl.TLSVersion.TLSv1_1, maximum_version=ssl.TLSVersion.TLSv1_1
            )
        assert (await ask(await world.connect()))[0] == 200

    run(scenario)


def test_a_body_beyond_the_limit_is_refused(run):
    """Before it fills the memory; one just within is read whole."""

    async def scenario(world):
        status, _ = await ask(await world.connect(), b" " * (MAX_BODY - 1 - len(BODY)) + BODY)
        assert status == 200
        reader, writer = await world.connect()
        length = MAX_BODY + 1
        writer.write(f"POST /mutate HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        status, _ = await answer(reader)
        assert status == 413

    run(scenario)


def test_at_the_end_due_answers_go_out(run):
    """Nobody new is let in, the idle are closed, the one in flight gets its answer."""
    asked, gate = threading.Event(), threading.Event()

    def slow(question, rules, quotas):
        asked.set()
        gate.wait(DEADLINE_S)
        return decide(question, rules, quotas)

    async def scenario(world):
        idle, busy = await world.connect(), await world.connect()
        port = world.front.port
        question = asyncio.create_task(ask(busy))
        await asyncio.to_thread(asked.wait, DEADLINE_S)
        world.clock = 10.0
        ending = asyncio.create_task(world.front.drain(60))
        # The listener closes a few turns of the loop later; who came in between is cut off.
        with pytest.raises(OSError, match=r"refused|reset"):
            await refused(port)
        assert not ending.done()
        gate.set()
        assert (await question)[0] == 200
        world.clock = 20.0
        await ending
        await ended(idle[0])
        await ended(busy[0])

    run(scenario, decide=slow)


def test_an_answer_that_never_comes_does_not_keep_us(run):
    """The end has a time limit."""
    asked, gate = threading.Event(), threading.Event()

    def stuck(question, rules, quotas):
        asked.set()
        gate.wait(DEADLINE_S)
        return decide(question, rules, quotas)

    async def scenario(world):
        reader, writer = await world.connect()
        writer.write(b"POST /mutate HTTP/1.1\r\nContent-Type: application/json\r\n")
        writer.write(f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        await asyncio.to_thread(asked.wait, DEADLINE_S)
        await world.front.drain(0)
        await ended(reader)
        gate.set()

    run(scenario, decide=stuck)


def test_a_backend_that_is_gone_ends_the_connection(run):
    """The client hears of it at once, and the front lives on."""

    async def scenario(world):
        world.front._upstream = str(world.folder / "absent")
        reader, writer = await world.connect()
        writer.write(b"POST")
        await ended(reader)
        world.front._upstream = world.socket
        assert (await ask(await world.connect()))[0] == 200

    run(scenario)
