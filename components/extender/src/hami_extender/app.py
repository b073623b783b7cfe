"""The HTTP face that kube-scheduler talks to: POST /filter, /prioritize, /preempt and /bind."""

import time
from collections.abc import Callable
from typing import Protocol

import falcon

from hami_extender.wire import (
    BindArgs,
    FilterArgs,
    FilterResult,
    PreemptArgs,
    Victims,
    WireError,
    decode_bind,
    decode_filter,
    decode_preempt,
    encode_bind,
    encode_priorities,
    encode_victims,
)

App = falcon.App[falcon.Request, falcon.Response]

MAX_BODY = 64 * 2**20
"""More than a pod of the largest size (1.5 MiB) with the names of 100,000 nodes."""


class Selects(Protocol):
    """The filter and prioritize verbs."""

    def filter(self, args: FilterArgs) -> FilterResult:
        """The nodes that could hold a pod."""

    def prioritize(self, args: FilterArgs) -> dict[str, int]:
        """How good each node is."""


class Binds(Protocol):
    """The bind verb."""

    def bind(self, args: BindArgs) -> str:
        """Place a pod; returns what is wrong."""


class Preempts(Protocol):
    """The preempt verb."""

    def missing(self) -> str:
        """What is missing until it can be answered."""

    def preempt(self, args: PreemptArgs) -> dict[str, Victims]:
        """Who has to go, on which nodes."""


Observe = Callable[[str, float], None]
"""Told a verb and how many seconds it took."""


def _body(request: falcon.Request) -> bytes:
    length = request.content_length or 0
    if length > MAX_BODY:
        raise WireError(
            f"body has {length} bytes, at most {MAX_BODY} are read; ask for fewer nodes at a time"
        )
    return request.bounded_stream.read()


class _Filter:
    def __init__(self, selects: Selects, observe: Observe) -> None:
        self._selects, self._observe = selects, observe

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        start = time.perf_counter()
        try:
            result = self._selects.filter(decode_filter(_body(request)))
        except WireError as error:
            result = FilterResult(error=str(error))
        response.data = result.encode()
        self._observe("filter", time.perf_counter() - start)


class _Prioritize:
    def __init__(self, selects: Selects, observe: Observe) -> None:
        self._selects, self._observe = selects, observe

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        start = time.perf_counter()
        try:
            scores = self._selects.prioritize(decode_filter(_body(request)))
        except WireError as error:
            # A HostPriorityList has no room for an error.
            raise falcon.HTTPBadRequest(description=str(error)) from error
        response.data = encode_priorities(scores)
        self._observe("prioritize", time.perf_counter() - start)


class _Preempt:
    def __init__(self, preempts: Preempts, observe: Observe) -> None:
        self._preempts, self._observe = preempts, observe

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        start = time.perf_counter()
        # The answer has no room for an error: kube-scheduler logs the status and tries again.
        if missing := self._preempts.missing():
            raise falcon.HTTPServiceUnavailable(description=missing)
        try:
            victims = self._preempts.preempt(decode_preempt(_body(request)))
        except WireError as error:
            raise falcon.HTTPBadRequest(description=str(error)) from error
        response.data = encode_victims(victims)
        self._observe("preempt", time.perf_counter() - start)


class _Bind:
    def __init__(self, binds: Binds, observe: Observe) -> None:
        self._binds, self._observe = binds, observe

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        start = time.perf_counter()
        try:
            error = self._binds.bind(decode_bind(_body(request)))
        except WireError as wrong:
            error = str(wrong)
        response.data = encode_bind(error)
        self._observe("bind", time.perf_counter() - start)


def create_app(
    selects: Selects,
    binds: Binds,
    preempts: Preempts,
    *,
    observe: Observe = lambda _verb, _seconds: None,
) -> App:
    """The WSGI application; answers are HTTP 200 with what is wrong in `Error`."""
    app: App = falcon.App()
    app.add_route("/filter", _Filter(selects, observe))
    app.add_route("/prioritize", _Prioritize(selects, observe))
    app.add_route("/preempt", _Preempt(preempts, observe))
    app.add_route("/bind", _Bind(binds, observe))
    return app
