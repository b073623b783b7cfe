"""Behaviour of hami_webhook.registration: trust and conditions in the API server's own object."""

import base64
import json
from datetime import UTC, datetime, timedelta

import jsonpatch
import pytest
from msgspec.json import decode

from hami_webhook.conditions import CONDITIONS, named
from hami_webhook.issuer import issue
from hami_webhook.registration import OTHERS_STAY, Registration
from hamikit.cluster import ApiError
from hamikit.devices import HYGON, NVIDIA

NOW = datetime.now(UTC)
BUNDLE = issue("h", NOW)
ROWS = ((NVIDIA,), (NVIDIA, HYGON))


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


def test_who_has_the_settings_of_before_takes_nothing_away():
    """While replicas are replaced, or hear of a ConfigMap one after the other."""
    before, after = ({n: write(f) for n, write in CONDITIONS.items()} for f in ROWS)
    api = FakeApi(webhook(asks_for_a_device="?"), webhook(asks_for_no_device="?"))
    old, new = Registration(api, "mine"), Registration(api, "mine")
    old.update(None, before, NOW)
    new.update(None, after, NOW)
    expected = json.dumps(api.object)
    assert "hygon.com/dcunum" in expected
    api.patches.clear()
    for seconds in range(0, 600, 60):
        old.update(None, before, NOW + timedelta(seconds=seconds))
        new.update(None, after, NOW + timedelta(seconds=seconds))
    assert api.patches == []
    assert json.dumps(api.object) == expected


def test_names_that_nobody_asks_for_any_more_go_in_the_end():
    """A family was taken out of the settings; each replica waits once from when it saw them."""
    before, after = ({n: write(f) for n, write in CONDITIONS.items()} for f in ROWS[::-1])
    api = FakeApi(webhook(asks_for_a_device=before["asks-for-a-device"]))
    registration = Registration(api, "mine")
    registration.update(None, after, NOW)
    assert api.patches == []
    registration.update(None, before, NOW + OTHERS_STAY / 2)
    registration.update(None, after, NOW + OTHERS_STAY)
    assert api.patches == []
    registration.update(None, after, NOW + OTHERS_STAY * 2)
    expression = api.object["webhooks"][0]["matchConditions"][0]["expression"]
    assert expression == after["asks-for-a-device"]


def test_replicas_of_other_settings_do_not_fight_over_the_order():
    """Each has a family that the other does not know."""
    mine, theirs = ({n: write(f) for n, write in CONDITIONS.items()} for f in ((NVIDIA,), (HYGON,)))
    api = FakeApi(webhook(asks_for_a_device="old"))
    one, other = Registration(api, "mine"), Registration(api, "mine")
    for _ in range(3):
        one.update(None, mine, NOW)
        other.update(None, theirs, NOW)
    assert len(api.patches) == 2
    expression = api.object["webhooks"][0]["matchConditions"][0]["expression"]
    assert {*NVIDIA.resources, *HYGON.resources} <= set(named(expression))


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
