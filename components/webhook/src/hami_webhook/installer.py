"""Keeping the webhook's certificate in its Secret, its registration and its files.

Every step can be repeated and looks before it writes, so any number of replicas may run it and die
in the middle.
"""

import base64
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
import structlog

from hami_webhook.certificate import CERTIFICATE_FILE, KEY_FILE
from hami_webhook.config import CertificatesConfig
from hami_webhook.issuer import Bundle, issue, usable
from hamikit.cluster import Api, ApiError
from hamikit.objects import Metadata

log = structlog.get_logger()

JSON_PATCH = "application/json-patch+json"
_ATTEMPTS = 5


class _Secret(msgspec.Struct):
    metadata: Metadata
    data: dict[str, str] = msgspec.field(default_factory=dict)


class _ClientConfig(msgspec.Struct, rename={"bundle": "caBundle"}):
    bundle: str = ""


class _Webhook(msgspec.Struct, rename={"client": "clientConfig"}):
    name: str
    client: _ClientConfig


class _Registration(msgspec.Struct):
    webhooks: list[_Webhook] = msgspec.field(default_factory=list)


class Installer:
    """Brings Secret, registration and files together; `run_once` may be called for ever."""

    def __init__(
        self,
        api: Api,
        config: CertificatesConfig,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api, self._config, self._now = api, config, now
        namespace = quote(config.namespace, safe="")
        self._secrets = f"/api/v1/namespaces/{namespace}/secrets"
        self._secret = f"{self._secrets}/{quote(config.secret, safe='')}"
        self._registration = (
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/"
            + quote(config.registration, safe="")
        )

    def run_once(self) -> None:
        """One look at everything, and whatever is to be done.

        Raises:
            ApiError, Unreachable: the API server refused or did not answer; try again.
            OSError: the files could not be written.
        """
        bundle = self._stored_or_new()
        # Trust first: a certificate of an authority that nobody knows would fail every admission.
        self._register(bundle.authorities)
        write_files(self._config.certificate_dir, bundle)

    def _stored_or_new(self) -> Bundle:
        """The Secret's bundle if it serves, otherwise a new one that we managed to store."""
        for _ in range(_ATTEMPTS):
            secret = self._read()
            stored = _decode(secret.data) if secret else None
            if stored and usable(stored, self._config.host, self._now()):
                return stored
            fresh = issue(self._config.host, self._now(), stored)
            try:
                self._store(fresh, secret)
            except ApiError as error:
                if error.status != 409:
                    raise
                continue  # another replica was faster: use what it stored
            log.info("certificate issued", host=self._config.host, secret=self._config.secret)
            return fresh
        raise ApiError(409, "Conflict", f"{self._secret} changed {_ATTEMPTS} times under us")

    def _read(self) -> _Secret | None:
        try:
            return self._api.get(self._secret, _Secret)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _store(self, bundle: Bundle, held: _Secret | None) -> None:
        files = bundle.to_files()
        data = {name: base64.b64encode(value).decode() for name, value in files.items()}
        if held is None:
            metadata = {
                "name": self._config.secret,
                "labels": {"app.kubernetes.io/part-of": "hami"},
            }
            body: dict[str, Any] = {"metadata": metadata, "type": "kubernetes.io/tls"}
            self._api.create(self._secrets, {"data": data, **body})
        else:
            version = {"resourceVersion": held.metadata.resource_version}
            self._api.patch(self._secret, {"metadata": version, "data": data})

    def _register(self, authorities: bytes) -> None:
        """Write the authorities into every webhook of our registration that lacks them."""
        wanted = base64.b64encode(authorities).decode()
        try:
            found = self._api.get(self._registration, _Registration)
        except ApiError as error:
            if error.status != 404:
                raise
            # Nobody calls us then, so there is nobody to trust us either.
            log.warning("no registration yet", name=self._config.registration)
            return
        patch: list[dict[str, str]] = []
        for index, webhook in enumerate(found.webhooks):
            if webhook.client.bundle != wanted:
                at = f"/webhooks/{index}"
                patch += [
                    {"op": "test", "path": f"{at}/name", "value": webhook.name},
                    {"op": "add", "path": f"{at}/clientConfig/caBundle", "value": wanted},
                ]
        if patch:
            self._api.request("PATCH", self._registration, body=patch, content_type=JSON_PATCH)
            log.info("authorities registered", name=self._config.registration)


def _decode(data: dict[str, str]) -> Bundle | None:
    """The bundle in a Secret's data, None when it is not whole."""
    try:
        return Bundle.from_files({name: base64.b64decode(text) for name, text in data.items()})
    except (KeyError, ValueError) as error:
        log.warning("stored certificate not usable, making a new one", error=repr(error))
        return None


def write_files(folder: str, bundle: Bundle) -> None:
    """Write key and certificate for the front, each whole; files that are right are left alone."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name, content in ((KEY_FILE, bundle.key), (CERTIFICATE_FILE, bundle.certificate)):
        path = os.path.join(folder, name)
        if _read_file(path) == content:
            continue
        descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(f"{path}.new", path)


def _read_file(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
