"""The running webhook: certificate, front and backend in one event loop, and their orderly end."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator

import structlog

from hami_webhook.app import backend
from hami_webhook.certificate import LiveCertificate
from hami_webhook.config import ServeConfig
from hami_webhook.metrics import Metrics
from hami_webhook.tls import Front, Limits
from hamikit.service import App, Lifecycle

log = structlog.get_logger()

REFRESH_S = 1.0


class Server:
    """Serves `app` behind TLS until the lifecycle stops.

    `refresh` is called every second, `started` is told the port.
    """

    def __init__(
        self,
        config: ServeConfig,
        app: App,
        metrics: Metrics,
        lifecycle: Lifecycle,
        *,
        limits: Limits | None = None,
        refresh: Callable[[], None] = lambda: None,
        started: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._refresh = refresh
        self._config, self._app, self._lifecycle = config, app, lifecycle
        self._metrics, self._limits, self._started = metrics, limits or Limits(), started
        self._certificate = LiveCertificate(config.certificate_dir, metrics.certificate_expiry.set)
        self._front: Front | None = None
        self._stop = asyncio.Event()
        lifecycle.ready_when("certificate", self._certificate.missing)
        lifecycle.ready_when("tls", self._missing)

    def _missing(self) -> str | None:
        return self._front.missing() if self._front else "not listening yet"

    async def run(self) -> None:
        """Wait for a certificate, serve, end in order. OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        with _private_folder(self._config.run_dir) as folder:
            path = f"{folder}/http.sock"
            backend(
                self._app,
                path,
                connections=self._limits.connections,
                closing=self._lifecycle.stopping,
            )
            await self._until_certificate()
            if self._stop.is_set():
                return
            await self._serve(path)

    def stop(self) -> None:
        """Not ready from now on; `run` ends a little later. Call it in the event loop."""
        self._lifecycle.stop()
        self._stop.set()

    async def _until_certificate(self) -> None:
        waiting = False
        while not self._certificate.refresh() and not self._stop.is_set():
            if not waiting:
                log.info("waiting for a certificate", folder=self._config.certificate_dir)
            waiting = True
            await _wait(self._stop, REFRESH_S / 5)

    async def _serve(self, path: str) -> None:
        count = self._metrics.connections.set
        front = Front(self._certificate.context, path, limits=self._limits, count=count)
        front.start(*self._config.address)
        self._front = front
        self._started(front.port)
        log.info("serving", port=front.port)
        while not self._stop.is_set():
            await _wait(self._stop, REFRESH_S)
            self._certificate.refresh()
            self._refresh()
        # Endpoints are withdrawn after readiness; until then new questions still come.
        log.info("stopping", in_s=self._config.drain_s)
        await asyncio.sleep(self._config.drain_s)
        await front.drain(self._config.finish_s)
        log.info("stopped")


@contextlib.contextmanager
def _private_folder(run_dir: str) -> Iterator[str]:
    """A folder that only we can enter, so that nobody else speaks to the backend.

    The name is fixed: what a killed process left is found and removed.
    """
    path = os.path.join(run_dir, "webhook")
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path, 0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
