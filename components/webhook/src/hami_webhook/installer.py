"""Keeping the webhook's certificate in its Secret, its registration and its files.

Every step can be repeated and looks before it writes, so any number of replicas may run it and die
in the middle.
"""

import base64
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
import structlog

from hami_webhook.certificate import CERTIFICATE_FILE, KEY_FILE
from hami_webhook.config import CertificatesConfig
from hami_webhook.issuer import Bundle, issue, successor
from hami_webhook.registration import Registration
from hamikit.cluster import Api, ApiError
from hamikit.objects import Metadata

log = structlog.get_logger()

_ATTEMPTS = 5


class _Secret(msgspec.Struct):
    metadata: Metadata
    data: dict[str, str] = msgspec.field(default_factory=dict)


class Installer:
    """Brings Secret, registration and files together; `run_once` may be called for ever."""

    def __init__(
        self,
        api: Api,
        config: CertificatesConfig,
        *,
        conditions: Callable[[], Mapping[str, str]] = dict,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api, self._config, self._now = api, config, now
        self._conditions = conditions
        namespace = quote(config.namespace, safe="")
        self._secrets = f"/api/v1/namespaces/{namespace}/secrets"
        self._secret = f"{self._secrets}/{quote(config.secret, safe='')}"
        self._registration = Registration(api, config.registration)

    def run_once(self) -> None:
        """One look at everything, and whatever is to be done.

        Raises:
            ApiError, Unreachable: the API server refused or did not answer; try again.
            OSError: the files could not be written.
        """
        if not self._config.self_signed:
            self._registration.update(None, self._conditions(), self._now())
            return
        bundle = self._stored_or_new()
        # Trust first: a certificate of an authority that nobody knows would fail every admission.
        told = self._registration.update(bundle.authorities, self._conditions(), self._now())
        if told and self._shows_something():
            # The API servers hear of it by a watch; until the next look the old one is shown.
            return
        write_files(self._config.certificate_dir, bundle)

    def _shows_something(self) -> bool:
        return os.path.exists(os.path.join(self._config.certificate_dir, CERTIFICATE_FILE))

    def _stored_or_new(self) -> Bundle:
        """The Secret's bundle if it serves, otherwise a new one that we managed to store."""
        for _ in range(_ATTEMPTS):
            secret, host, now = self._read(), self._config.host, self._now()
            stored = _decode(secret.data) if secret else None
            if stored is None:
                fresh = issue(host, now)
            elif (due := successor(stored, host, now)) is not None:
                fresh = due
            else:
                return stored
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
