"""Access to the Kubernetes API: plain requests, decoded into our frozen values.

The official client supplies configuration, credentials and connections; bodies stay bytes and are
decoded by msgspec, because typed models cost milliseconds per pod.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

import kubernetes
import msgspec
import urllib3

T = TypeVar("T")

MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"


class ApiError(Exception):
    """The API server refused; `status` is the HTTP status, `reason` its machine-readable word."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status, self.reason, self.message = status, reason, message
        super().__init__(f"{status} {reason}: {message}")


class Unreachable(Exception):
    """No answer from the API server: whether a write happened is unknown."""


class _Status(msgspec.Struct):
    """The API's error body."""

    reason: str = ""
    message: str = ""


class Api:
    """One API server with our credentials.

    A connection lives in a pool of `connections`; every request has a time limit in seconds.
    """

    def __init__(self, configuration: Any, *, timeout: float = 10.0, connections: int = 16) -> None:
        configuration.connection_pool_maxsize = connections
        # Our callers decide what to retry: a blind retry of a Binding hides its outcome.
        configuration.retries = False
        self._configuration = configuration
        self._pool = kubernetes.client.ApiClient(configuration).rest_client.pool_manager
        self._timeout = timeout

    @classmethod
    def from_environment(cls, *, timeout: float = 10.0, connections: int = 16) -> "Api":
        """Use the pod's service account, or the file that KUBECONFIG names."""
        configuration = kubernetes.client.Configuration()
        if os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG"):
            kubernetes.config.load_incluster_config(client_configuration=configuration)
        else:
            # The client reads the variable when it is imported, which may be long before.
            path = os.environ.get("KUBECONFIG")
            kubernetes.config.load_kube_config(path, client_configuration=configuration)
        return cls(configuration, timeout=timeout, connections=connections)

    def get(self, path: str, kind: type[T], query: Mapping[str, str | int] | None = None) -> T:
        """GET and decode. Raises ApiError, Unreachable."""
        return msgspec.json.decode(self.request("GET", path, query=query), type=kind)

    def create(self, path: str, body: Any, query: Mapping[str, str | int] | None = None) -> bytes:
        """POST an object. Raises ApiError, Unreachable."""
        return self.request("POST", path, body=body, query=query)

    def patch(self, path: str, body: Any) -> bytes:
        """JSON merge patch. Raises ApiError, Unreachable."""
        return self.request("PATCH", path, body=body, content_type=MERGE_PATCH)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Any = None,
        content_type: str = JSON,
        timeout: float | None = None,
    ) -> bytes:
        """Send one request and return the body.

        Raises:
            ApiError: the server answered with an error.
            Unreachable: no or only half an answer within the time limit.
        """
        response = self._open(method, path, query, (body, content_type), timeout)
        data = _body(response, f"{method} {path}")
        if response.status >= 300:
            raise _error(response.status, data)
        return data

    def stream(self, path: str, query: Mapping[str, str | int], read_timeout: float) -> Any:
        """Open a watch and return the response, to be read by line and closed by the caller.

        Raises:
            ApiError: the server answered with an error.
            Unreachable: no answer.
        """
        response = self._open("GET", path, query, (None, JSON), read_timeout)
        if response.status >= 300:
            with response:
                raise _error(response.status, _body(response, f"watch {path}"))
        return response

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None,
        content: tuple[Any, str],
        timeout: float | None,
    ) -> Any:
        body, content_type = content
        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": JSON, "Content-Type": content_type, "User-Agent": "hami"}
        for setting in self._configuration.auth_settings().values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"]
        try:
            return self._pool.request(
                method,
                url,
                headers=headers,
                body=None if body is None else json.dumps(body).encode(),
                timeout=urllib3.Timeout(connect=5.0, read=timeout or self._timeout),
                preload_content=False,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{method} {path}: {error}") from error


def _body(response: Any, what: str) -> bytes:
    try:
        data: bytes = response.data
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(f"{what}: {error}") from error
    return data


def _error(status: int, data: bytes) -> ApiError:
    try:
        said = msgspec.json.decode(data, type=_Status)
    except msgspec.MsgspecError:
        said = _Status(message=data[:200].decode(errors="replace"))
    return ApiError(status, said.reason, said.message)
