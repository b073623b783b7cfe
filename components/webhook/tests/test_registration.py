"""Behaviour of hami_webhook.registration: trust and conditions in the API server's own object."""

import base64
import json
from datetime import UTC, datetime

import jsonpatch
import pytest
from msgspec.json import decode

from hami_webhook.conditions import CONDITIONS
from hami_webhook.issuer import issue
from hami_webhook.registration import Registration
from hamikit.cluster import ApiError
from hamikit.devices import NVIDIA

NOW = datetime.now(UTC)
BUNDLE = issue("h", NOW)


class FakeApi:
    """One registration, as two replicas could have left it."""

    def __init__(self, *webhooks):
        self.object = {"metadata": {"resourceVersion": "7"}, "webhooks": list(webhooks)}
        self.patches = []

    def get(self, path, kind):
        assert path.endswith("/mutatingwebhookconfigurations/mine")
        if self.object is None:
            raise ApiError(404, "NotFound", path)
        return decode(json.dumps(self.object), type=kind)

    def request(self, method, path, *, body, content_type):
        assert (method, content_type) == ("PATCH", "application/json-patch+json")
        self.patches.append(body)
        self.object = jsonpatch.apply_patch(self.object, body)


def webhook(name="w", **conditions):
    """An entry with conditions by name."""
    found = [{"name": key.replace("_", "-"), "expression": v} for key, v in conditions.items()]
    return {"name": name, "clientConfig": {"service": {}}, "matchConditions": found}


def test_conditions_follow_the_resource_names():
    """By their names, wherever they stand; others are the operator's own."""
    api = FakeApi(webhook(mine="true", asks_for_a_device="old"), webhook(asks_for_no_device="old"))
    wanted = {name: write((NVIDIA,)) for name, write in CONDITIONS.items()}
    assert Registration(api, "mine").update(None, wanted, NOW) is False
    first, second = (each["matchConditions"] for each in api.object["webhooks"])
    assert first[0] == {"name": "mine", "expression": "true"}
    assert "['nvidia.com/gpu'," in first[1]["expression"]
    assert second[0]["expression"] == "!" + first[1]["expression"]
    assert api.object["webhooks"][0]["clientConfig"] == {"service": {}}
    api.patches.clear()
    Registration(api, "mine").update(None, wanted, NOW)
    assert api.patches == []


def test_a_manifest_may_fold_an_expression():
    """White space is not a difference, so nobody fights with whoever applies the manifest."""
    expression = CONDITIONS["asks-for-a-device"]((NVIDIA,))
    api = FakeApi(webhook(asks_for_a_device=expression.replace(" ", "\n  ")))
    Registration(api, "mine").update(None, {"asks-for-a-device": expression}, NOW)
    assert api.patches == []


def test_every_write_is_guarded_by_what_was_read():
    """Whatever stands at that place now may be somebody else's webhook."""
    api = FakeApi(webhook())
    read = api.get

    def changed_after(path, kind):
        found = read(path, kind)
        api.object["metadata"]["resourceVersion"] = "8"
        return found

    api.get = changed_after
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        Registration(api, "mine").update(BUNDLE.authorities, {}, NOW)
    assert "caBundle" not in api.object["webhooks"][0]["clientConfig"]


def test_trust_is_one_for_all_entries():
    """An entry that was added later gets it too; what somebody else wrote and is valid stays."""
    other = issue("h", NOW).authorities
    api = FakeApi(webhook(), webhook())
    api.object["webhooks"][1]["clientConfig"]["caBundle"] = base64.b64encode(other).decode()
    assert Registration(api, "mine").update(BUNDLE.authorities, {}, NOW) is True
    bundles = {each["clientConfig"]["caBundle"] for each in api.object["webhooks"]}
    assert [base64.b64decode(each) for each in bundles] == [BUNDLE.authorities + other]


def test_garbage_in_the_place_of_trust_is_replaced():
    """Not base64, or no certificate."""
    for text in ("?", base64.b64encode(b"x").decode()):
        api = FakeApi(webhook())
        api.object["webhooks"][0]["clientConfig"]["caBundle"] = text
        Registration(api, "mine").update(BUNDLE.authorities, {}, NOW)
        bundle = api.object["webhooks"][0]["clientConfig"]["caBundle"]
        assert base64.b64decode(bundle) == BUNDLE.authorities


def test_without_a_registration_there_is_nothing_to_do():
    """It may be applied later."""
    api = FakeApi()
    api.object = None
    assert Registration(api, "mine").update(BUNDLE.authorities, {}, NOW) is False
