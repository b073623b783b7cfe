"""Who may ask: the API server says whose token it is and what that user may do."""

from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class ReviewApi(Protocol):
    """What we need of the API server."""

    def create(self, path: str, body: Any) -> bytes:
        """Create an object; raises ApiError, Unreachable."""


class _User(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)


class _AccessStatus(msgspec.Struct):
    allowed: bool = False


class _Token(msgspec.Struct):
    status: _TokenStatus = msgspec.field(default_factory=_TokenStatus)


class _Access(msgspec.Struct):
    status: _AccessStatus = msgspec.field(default_factory=_AccessStatus)


class Stranger(Exception):
    """No token, or none that the API server knows."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user as the API server names it, ready for an access review."""

    name: str
    spec: dict[str, Any]


class Admits(Protocol):
    """Who may ask; every method raises ApiError, Unreachable."""

    def who(self, authorization: str | None) -> Person:
        """Whose header this is; raises Stranger."""

    def may_see_pod(self, person: Person, namespace: str, name: str) -> bool:
        """Whether this user may get this pod."""

    def may(self, person: Person, method: str, path: str) -> bool:
        """Whether this user may use this path."""


class Access:
    """Asks the API server each time, so that a withdrawn right ends at once."""

    def __init__(self, api: ReviewApi) -> None:
        self._api = api

    def who(self, authorization: str | None) -> Person:
        """Whose `Authorization` header this is.

        Raises:
            Stranger: nobody's.
            ApiError, Unreachable: the API server cannot say.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Stranger("send a token: `Authorization: Bearer $(kubectl create token ...)`")
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token.strip()},
        }
        status = msgspec.json.decode(self._api.create(TOKEN_REVIEWS, body), type=_Token).status
        if not status.authenticated:
            raise Stranger("the API server does not know this token; make a new one")
        user = status.user
        spec = {"user": user.username, "groups": user.groups, "uid": user.uid, "extra": user.extra}
        return Person(user.username, spec)

    def may_see_pod(self, person: Person, namespace: str, name: str) -> bool:
        """Whether the user may `get` this pod. Raises ApiError, Unreachable."""
        resource = {"verb": "get", "resource": "pods", "namespace": namespace, "name": name}
        return self._allowed(person, "resourceAttributes", resource)

    def may(self, person: Person, method: str, path: str) -> bool:
        """Whether the user may use this path of ours. Raises ApiError, Unreachable."""
        return self._allowed(
            person, "nonResourceAttributes", {"verb": method.lower(), "path": path}
        )

    def _allowed(self, person: Person, kind: str, attributes: dict[str, str]) -> bool:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {**person.spec, kind: attributes},
        }
        answer = self._api.create(ACCESS_REVIEWS, body)
        return msgspec.json.decode(answer, type=_Access).status.allowed
