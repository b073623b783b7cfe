"""Our MutatingWebhookConfiguration: whom the API server trusts, and which pods it sends us."""

import base64
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import msgspec
import structlog

from hami_webhook.conditions import also, named, same
from hami_webhook.issuer import trust
from hamikit.cluster import Api, ApiError
from hamikit.objects import Metadata

log = structlog.get_logger()

OTHERS_STAY = timedelta(minutes=10)
"""As long as a Deployment may take to roll out (its progressDeadlineSeconds)."""
JSON_PATCH = "application/json-patch+json"
_PATH = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/"


class _ClientConfig(msgspec.Struct, rename={"bundle": "caBundle"}):
    bundle: str = ""


class _Condition(msgspec.Struct):
    name: str
    expression: str = ""


class _Webhook(msgspec.Struct, rename="camel"):
    name: str
    client_config: _ClientConfig = msgspec.field(default_factory=_ClientConfig)
    match_conditions: list[_Condition] = msgspec.field(default_factory=list)


class _Object(msgspec.Struct):
    metadata: Metadata = msgspec.field(default_factory=Metadata)
    webhooks: list[_Webhook] = msgspec.field(default_factory=list)


class Registration:
    """One registration by its name; every webhook in it is ours.

    Remembers since when it has seen resource names that its own settings do not have.
    """

    def __init__(self, api: Api, name: str) -> None:
        self._api, self._name, self._path = api, name, _PATH + quote(name, safe="")
        self._strange: dict[str, datetime] = {}

    def update(
        self, authorities: bytes | None, conditions: Mapping[str, str], now: datetime
    ) -> bool:
        """Bring trust (where `authorities` are given) and conditions, by their names, up to date.

        Authorities that are trusted already stay for as long as they are valid, so that replicas
        may change their certificates one after the other. So do resource names, for OTHERS_STAY:
        who still has the settings of before takes nothing away from who has those of now. Whether
        trust had to be changed.

        Raises:
            ApiError, Unreachable: the API server refused or did not answer; try again.
        """
        try:
            found = self._api.get(self._path, _Object)
        except ApiError as error:
            if error.status != 404:
                raise
            # Nobody calls us then, so there is nobody to trust us either.
            log.warning("no registration yet", name=self._name)
            return False
        trusted = [] if authorities is None else list(_trust(found, authorities, now))
        patch = [*trusted, *_conditions(found, self._with_others(found, conditions, now))]
        if patch:
            version = found.metadata.resource_version
            guard = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
            self._api.request("PATCH", self._path, body=[guard, *patch], content_type=JSON_PATCH)
            log.info("registration brought up to date", name=self._name, changes=len(patch))
        return bool(trusted)

    def _with_others(
        self, found: _Object, wanted: Mapping[str, str], now: datetime
    ) -> dict[str, str]:
        """The conditions with the names that another replica may have put there lately."""
        present = [c for webhook in found.webhooks for c in webhook.match_conditions]
        strange = {
            name: self._strange.get(name, now)
            for condition in present
            for name in named(condition.expression)
            if name not in named(wanted.get(condition.name, condition.expression))
        }
        self._strange = strange
        stay = [name for name, since in strange.items() if now - since < OTHERS_STAY]
        return {name: also(expression, stay) for name, expression in wanted.items()}


def _trust(found: _Object, authorities: bytes, now: datetime) -> Iterator[dict[str, Any]]:
    known = b"".join(_decoded(webhook.client_config.bundle) for webhook in found.webhooks)
    wanted = base64.b64encode(trust(authorities, known, now)).decode()
    for index, webhook in enumerate(found.webhooks):
        if webhook.client_config.bundle != wanted:
            path = f"/webhooks/{index}/clientConfig/caBundle"
            yield {"op": "add", "path": path, "value": wanted}


def _decoded(bundle: str) -> bytes:
    try:
        return base64.b64decode(bundle, validate=True)
    except ValueError:
        return b""


def _conditions(found: _Object, wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for index, webhook in enumerate(found.webhooks):
        for place, condition in enumerate(webhook.match_conditions):
            expression = wanted.get(condition.name, condition.expression)
            if not same(expression, condition.expression):
                path = f"/webhooks/{index}/matchConditions/{place}/expression"
                yield {"op": "replace", "path": path, "value": expression}
