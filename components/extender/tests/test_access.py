"""Who may ask."""

import json

import pytest

from hami_extender.access import ACCESS_REVIEWS, TOKEN_REVIEWS, Access, Stranger

USER = {"username": "ada", "uid": "7", "groups": ["g"], "extra": {"k": ["v"]}}


class Reviews:
    """An API server that knows the token `good` and allows what is in `allowed`."""

    def __init__(self, *allowed):
        self.allowed, self.asked = allowed, []

    def create(self, path, body):
        self.asked.append((path, body["spec"]))
        spec = body["spec"]
        if path == TOKEN_REVIEWS:
            good = spec["token"] == "good"
            return json.dumps({"status": {"authenticated": good, "user": USER}}).encode()
        attributes = spec.get("resourceAttributes") or spec["nonResourceAttributes"]
        return json.dumps({"status": {"allowed": attributes in self.allowed}}).encode()


@pytest.mark.parametrize("header", [None, "", "good", "Basic good", "Bearer ", "Bearer bad"])
def test_strangers(header):
    """Without a token that the API server knows nobody gets in."""
    with pytest.raises(Stranger):
        Access(Reviews()).who(header)


def test_rights_are_asked_as_the_user():
    """Name, uid, groups and extra fields go into the access review."""
    pod = {"verb": "get", "resource": "pods", "namespace": "ns", "name": "p"}
    api = Reviews(pod, {"verb": "post", "path": "/simulate"})
    access = Access(api)
    ada = access.who("bearer  good")
    assert ada.name == "ada"
    assert access.may_see_pod(ada, "ns", "p")
    assert not access.may_see_pod(ada, "ns", "q")
    assert access.may(ada, "POST", "/simulate")
    assert not access.may(ada, "GET", "/state")
    path, spec = api.asked[1]
    assert path == ACCESS_REVIEWS
    asked = {"user": "ada", "groups": ["g"], "uid": "7", "extra": {"k": ["v"]}}
    assert spec == {**asked, "resourceAttributes": pod}
