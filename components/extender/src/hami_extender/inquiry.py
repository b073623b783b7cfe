"""The listener for people: /explain, /simulate and /state, each with a token, and /status."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import falcon
import msgspec

from hami_extender.access import Admits, Person, Stranger
from hami_extender.explain import NODES_TOLD, UnknownPod
from hami_extender.page import PATH, Reads, StatusPage
from hami_extender.render import pod_text, pods_text
from hami_extender.simulate import ManifestError, read_manifest
from hami_extender.survey import PodAnswer
from hami_extender.wire import NAME
from hamikit.cluster import ApiError, Unreachable
from hamikit.objects import Pod

App = falcon.App[falcon.Request, falcon.Response]

MAX_MANIFEST = 3 * 2**20
"""Bytes; the API server takes no larger object."""
MAX_NODES = 200
"""Told in full while everybody else waits: a millisecond or two each."""


class Explains(Protocol):
    """Why pods are where they are."""

    def pod(self, namespace: str, name: str, limit: int = ...) -> PodAnswer:
        """One pod; raises UnknownPod, ApiError, Unreachable."""

    def waiting(self) -> list[PodAnswer]:
        """The pods without a node."""


class Simulates(Protocol):
    """Where a pod would go."""

    def simulate(self, pod: Pod, limit: int = ...) -> PodAnswer:
        """The placement or the reasons."""


class _Guard:
    """Finds out who asks before anything else is looked at."""

    def __init__(self, access: Admits) -> None:
        self._access = access

    def process_resource(
        self, request: falcon.Request, _response: falcon.Response, resource: Any, _params: Any
    ) -> None:
        if isinstance(resource, StatusPage):
            return  # It asks in a browser's way.
        try:
            person = self._access.who(request.get_header("Authorization"))
            whole = self._access.may(person, request.method, request.path)
            if not whole and not self._own_pod(request, person):
                raise falcon.HTTPForbidden(
                    description=f"{person.name} may not {request.method.lower()} {request.path}; "
                    "bind the ClusterRole hami-explain, or ask about a pod that you may get"
                )
        except Stranger as error:
            raise falcon.HTTPUnauthorized(description=str(error), challenges=["Bearer"]) from error
        except (ApiError, Unreachable, msgspec.MsgspecError) as error:
            raise falcon.HTTPServiceUnavailable(
                description=f"the API server cannot say who you are: {error}"
            ) from error
        request.context.whole = whole

    def _own_pod(self, request: falcon.Request, person: Person) -> bool:
        if request.path != "/explain" or not request.get_param("pod"):
            return False
        return self._access.may_see_pod(person, *_pod_name(request))


class _Explain:
    def __init__(self, explains: Explains) -> None:
        self._explains = explains

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        if request.get_param("pod") is None:
            _answer(request, response, self._explains.waiting(), pods_text)
            return
        namespace, name = _pod_name(request)
        try:
            answer = self._explains.pod(namespace, name, _limit(request))
        except UnknownPod as error:
            raise falcon.HTTPNotFound(description=str(error)) from error
        except (ApiError, Unreachable, msgspec.MsgspecError) as error:
            raise falcon.HTTPServiceUnavailable(
                description=f"the pod cannot be read: {error}"
            ) from error
        if not request.context.whole:
            answer = _without_others(answer)
        _answer(request, response, answer, pod_text)


class _Simulate:
    def __init__(self, simulates: Simulates) -> None:
        self._simulates = simulates

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        if (request.content_length or 0) > MAX_MANIFEST:
            raise falcon.HTTPContentTooLarge(
                description=f"the manifest has {request.content_length} bytes, at most "
                f"{MAX_MANIFEST} are read"
            )
        try:
            pod = read_manifest(request.bounded_stream.read())
        except ManifestError as error:
            raise falcon.HTTPBadRequest(description=str(error)) from error
        _answer(request, response, self._simulates.simulate(pod, _limit(request)), pod_text)


class _State:
    def __init__(self, state: Callable[[], dict[str, object]]) -> None:
        self._state = state

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = falcon.MEDIA_JSON
        response.data = msgspec.json.encode(self._state())


def create_inquiry(
    explains: Explains,
    simulates: Simulates,
    state: Callable[[], dict[str, object]],
    overviews: Reads,
    access: Admits,
) -> App:
    """The WSGI application; what is wrong is one line in `error`."""
    app: App = falcon.App(middleware=[_Guard(access)])
    app.set_error_serializer(_serialize_error)
    app.add_route("/explain", _Explain(explains))
    app.add_route("/simulate", _Simulate(simulates))
    app.add_route("/state", _State(state))
    app.add_route(PATH, StatusPage(overviews, access))
    return app


def _pod_name(request: falcon.Request) -> tuple[str, str]:
    namespace, _, name = request.get_param("pod", default="").partition("/")
    if not NAME.fullmatch(namespace) or not NAME.fullmatch(name):
        raise falcon.HTTPBadRequest(description="write the pod as ?pod=namespace/name")
    return namespace, name


def _limit(request: falcon.Request) -> int:
    text = request.get_param("limit", default=str(NODES_TOLD))
    if not text.isascii() or not text.isdigit() or int(text) > MAX_NODES:
        raise falcon.HTTPBadRequest(
            description=f"limit is {text!r}, but it must be a number of nodes from 0 to {MAX_NODES}"
        )
    return int(text)


def _without_others(answer: PodAnswer) -> PodAnswer:
    """Who may see this one pod is not told the names of others."""
    nodes = tuple(
        replace(node, cards=tuple(replace(card, held_by=()) for card in node.cards))
        for node in answer.nodes
    )
    return replace(answer, nodes=nodes)


def _answer(
    request: falcon.Request, response: falcon.Response, value: Any, text: Callable[[Any], str]
) -> None:
    if _wants_text(request):
        response.content_type = falcon.MEDIA_TEXT
        response.text = text(value)
    else:
        response.content_type = falcon.MEDIA_JSON
        response.data = msgspec.json.encode(value)


def _wants_text(request: falcon.Request) -> bool:
    chosen = request.get_param("format")
    if chosen is not None:
        return chosen == "text"
    kinds = (falcon.MEDIA_JSON, falcon.MEDIA_TEXT)
    return request.client_prefers(kinds) == falcon.MEDIA_TEXT


def _serialize_error(
    request: falcon.Request, response: falcon.Response, error: falcon.HTTPError
) -> None:
    said = error.description or error.title or ""
    if _wants_text(request):
        response.content_type = falcon.MEDIA_TEXT
        response.text = f"{said}\n"
    else:
        response.content_type = falcon.MEDIA_JSON
        response.data = msgspec.json.encode({"error": said})
