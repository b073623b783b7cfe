"""The HTTP application: POST /mutate takes an AdmissionReview and answers with one."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import falcon
import structlog
import waitress
from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from hami_webhook.metrics import Metrics
from hami_webhook.review import Answer, Outcome, Question, ReviewError, decide, decode, encode
from hami_webhook.rules import Rules
from hamikit.inline import answer_inline
from hamikit.quotas import Limits, Quotas
from hamikit.service import App

log = structlog.get_logger()
# The API server takes bodies up to 3 MiB; an AdmissionReview is JSON and may be longer than what
# came as protobuf.
MAX_BODY = 8 * 1024 * 1024
Decide = Callable[[Question, Rules, Sequence[Limits]], Answer]


class _Mutate:
    def __init__(
        self, rules: Callable[[], Rules], metrics: Metrics, quotas: Quotas, decide: Decide
    ) -> None:
        self._rules, self._metrics, self._quotas, self._decide = rules, metrics, quotas, decide

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        if (request.content_type or "").split(";")[0].strip() != falcon.MEDIA_JSON:
            raise falcon.HTTPUnsupportedMediaType(description="send application/json")
        body = request.bounded_stream.read()
        begin = time.perf_counter()
        answer, data = self._answer(body)
        self._metrics.duration.observe(time.perf_counter() - begin)
        self._metrics.admissions[answer.outcome].inc()
        response.content_type = falcon.MEDIA_JSON
        response.data = data

    def _answer(self, body: bytes) -> tuple[Answer, bytes]:
        try:
            question = decode(body)
        except ReviewError as error:
            answer = Answer(Outcome.ERRORED, str(error), 400)
            log.warning("question refused", error=answer.message)
            return answer, encode(answer, error.uid, error.version)
        try:
            answer = self._decide(question, self._rules(), self._quotas.of(question.namespace))
        except Exception:  # the outermost frame of a question: the API server must hear of it
            log.exception("question failed", uid=question.uid)
            answer = Answer(Outcome.ERRORED, "internal error, see the log of hami-webhook", 500)
        if answer.outcome is Outcome.REFUSED and question.pod is not None:
            log.info("pod refused", pod=question.name, reason=answer.message)
        return answer, encode(answer, question.uid, question.version)


def create_app(
    rules: Callable[[], Rules],
    metrics: Metrics,
    *,
    quotas: Quotas | None = None,
    decide: Decide = decide,
) -> App:
    """The application behind the TLS front; every question is asked under the rules of its time."""
    app: App = falcon.App()
    app.add_route("/mutate", _Mutate(rules, metrics, quotas or Quotas(), decide))
    return app


def backend(
    app: App, path: str, *, connections: int, closing: threading.Event | None = None
) -> threading.Thread:
    """Serve the application on a unix socket in a thread of its own.

    From `closing` on every answer ends its connection, so that a client does not send another
    question into one that is about to go.
    """
    # It warns of every request that waits for a thread, which says nothing to anybody here.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = waitress.create_server(
        app,
        unix_socket=path,
        unix_socket_perms="600",
        threads=1,  # for what is no HTTP
        ident=None,
        connection_limit=connections + 16,  # its own listener and trigger count too
        channel_timeout=3600,  # the front decides which connection has been idle for too long
        asyncore_use_poll=True,  # select() ends at descriptor 1024
        max_request_body_size=MAX_BODY,
        # Larger bodies would go to files in /tmp, and our root is read-only.
        inbuf_overflow=2 * MAX_BODY,
        outbuf_overflow=2 * MAX_BODY,
        outbuf_high_watermark=2**30,
    )
    server.channel_class = _channel_class(closing or threading.Event())
    # A decision waits for nothing.
    answer_inline(server, lambda _path: True)
    thread = threading.Thread(target=server.run, name="backend", daemon=True)
    thread.start()
    return thread


def _channel_class(closing: threading.Event) -> type[HTTPChannel]:
    """A connection that says `Connection: close` once we are closing.

    An application may not set that header itself (PEP 3333).
    """

    class Task(WSGITask):  # type: ignore[misc]
        def build_response_header(self) -> bytes:
            if closing.is_set():
                self.set_close_on_finish()
            header: bytes = super().build_response_header()
            return header

    class Channel(HTTPChannel):  # type: ignore[misc]
        task_class = Task

    return Channel
