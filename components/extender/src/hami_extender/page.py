"""The status page: GET /status in a browser, whose user signs in with a token once."""

import base64
import hashlib
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import parse_qs, urlencode

import falcon
import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from hami_extender.access import Admits, Stranger
from hami_extender.overview import NODES_SHOWN, PODS_SHOWN, Overview, Window
from hami_extender.sessions import Sessions
from hamikit.cluster import ApiError, Unreachable

PATH = "/status"
COOKIE = "hami-session"
MAX_FORM = 64 * 2**10
"""Bytes; a token has about one KiB."""
MAX_PAGE = 10**6


class Reads(Protocol):
    """The cluster as the page shows it."""

    def read(self, window: Window) -> Overview:
        """The cluster now."""


class StatusPage:
    """Answers people's browsers. No script runs in them, and nothing can be changed by them."""

    def __init__(self, overviews: Reads, access: Admits, sessions: Sessions | None = None) -> None:
        self._overviews, self._access = overviews, access
        self._sessions = sessions or Sessions()
        environment = Environment(
            loader=PackageLoader("hami_extender", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._page = environment.get_template("status.html")
        self._style = environment.get_template("status.css").render()
        digest = base64.b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'"
        self._policy = f"{policy}; frame-ancestors 'none'"

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        """The page, or the form to sign in with."""
        session = _session(request)
        token = self._sessions.token(session)
        if token is None:
            refused = "your session is not known here; sign in again" if session else "sign in"
            self._show(response, falcon.HTTP_401, refused=refused)
        elif self._admits(token, response):
            self._show(response, falcon.HTTP_200, overview=self._overviews.read(_window(request)))

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """Sign in with `token`, or out with `leave`; either ends the session that there was."""
        if (request.content_length or 0) > MAX_FORM:
            raise falcon.HTTPContentTooLarge(description=f"a token has at most {MAX_FORM} bytes")
        form = parse_qs(request.bounded_stream.read().decode("ascii", "replace"))
        if "leave" in form:
            self._sessions.close(_session(request))
            response.unset_cookie(COOKIE, path=PATH, same_site="Strict")
            raise falcon.HTTPStatus(falcon.HTTP_303, headers={"Location": PATH})
        token = form.get("token", [""])[0].strip()
        if not _plain(token):
            self._show(response, falcon.HTTP_400, refused="that is not a token")
        elif self._admits(token, response):
            self._sessions.close(_session(request))
            self._enter(request, response, token)

    def _enter(self, request: falcon.Request, response: falcon.Response, token: str) -> None:
        response.set_cookie(
            COOKIE,
            self._sessions.open(token),
            path=PATH,
            http_only=True,
            same_site="Strict",
            # Nothing between kubectl port-forward and us speaks TLS; a proxy before us may.
            secure=request.forwarded_scheme == "https",
        )
        raise falcon.HTTPStatus(falcon.HTTP_303, headers={"Location": PATH})

    def _admits(self, token: str, response: falcon.Response) -> bool:
        """Whether its owner may see the page; otherwise the form says why he may not."""
        try:
            person = self._access.who(f"Bearer {token}")
            if self._access.may(person, "GET", PATH):
                return True
            said = f"{person.name} may not see this page; bind the ClusterRole hami-explain"
            self._show(response, falcon.HTTP_401, refused=said)
        except Stranger as error:
            self._show(response, falcon.HTTP_401, refused=str(error))
        except (ApiError, Unreachable, msgspec.MsgspecError) as error:
            said = f"the API server cannot say who you are: {error}"
            self._show(response, falcon.HTTP_503, refused=said)
        return False

    def _show(self, response: falcon.Response, status: str, **shown: Any) -> None:
        response.status = status
        response.content_type = falcon.MEDIA_HTML
        response.set_header("Content-Security-Policy", self._policy)
        response.set_header("Cache-Control", "no-store")
        figures = {"nodes_shown": NODES_SHOWN, "pods_shown": PODS_SHOWN, "link": link}
        page = {"overview": None, "refused": "", "style": self._style, **figures, **shown}
        response.text = self._page.render(page)


def link(window: Window, **changed: Any) -> str:
    """The address of another part of the page."""
    other = replace(window, **changed)
    query = {"node": other.name, "nodes": other.nodes_page, "pods": other.pods_page}
    return f"{PATH}?{urlencode({key: value for key, value in query.items() if value})}"


def _session(request: falcon.Request) -> str:
    """The id in the browser's cookie; empty where it has none."""
    return (request.get_cookie_values(COOKIE) or [""])[0]


def _plain(token: str) -> bool:
    """Whether this can stand in a header."""
    return bool(token) and all(33 <= ord(char) < 127 and char not in '";,\\' for char in token)


def _window(request: falcon.Request) -> Window:
    """The part that the address names. Raises falcon.HTTPInvalidParam."""
    return Window(
        name=request.get_param("node", default=""),
        nodes_page=request.get_param_as_int("nodes", default=0, min_value=0, max_value=MAX_PAGE),
        pods_page=request.get_param_as_int("pods", default=0, min_value=0, max_value=MAX_PAGE),
    )
