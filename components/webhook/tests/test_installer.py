"""Behaviour of hami_webhook.installer: Secret, registration and files, against a small API."""

import base64
import json
from datetime import UTC, datetime, timedelta

import jsonpatch
import pytest
from cryptography import x509
from msgspec.json import decode

from hami_webhook.config import parse
from hami_webhook.installer import Installer
from hami_webhook.issuer import issue
from hamikit.cluster import ApiError

SECRETS = "/api/v1/namespaces/hami-system/secrets"
SECRET = f"{SECRETS}/hami-webhook-tls"
REGISTRATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/hami-webhook"
NOW = datetime.now(UTC)
HOST = "hami-webhook.hami-system.svc"


class FakeApi:
    """Objects by path with resource versions; `before` runs once before the next write."""

    def __init__(self):
        webhooks = [{"name": name, "clientConfig": {}} for name in "ab"]
        self.objects = {
            REGISTRATION: {"metadata": {"resourceVersion": "1"}, "webhooks": webhooks},
        }
        self.writes = []
        self.before = None

    def get(self, path, kind):
        if path not in self.objects:
            raise ApiError(404, "NotFound", path)
        return decode(json.dumps(self.objects[path]), type=kind)

    def create(self, path, body):
        self._write("create", path)
        name = f"{path}/{body['metadata']['name']}"
        if name in self.objects:
            raise ApiError(409, "AlreadyExists", name)
        self.put(name, body)

    def patch(self, path, body):
        self._write("patch", path)
        held = self.objects[path]
        if body["metadata"]["resourceVersion"] != held["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", path)
        self.put(path, held | {"data": held["data"] | body["data"]})

    def request(self, method, path, *, body, content_type):
        assert (method, content_type) == ("PATCH", "application/json-patch+json")
        self._write("jsonpatch", path)
        self.put(path, jsonpatch.apply_patch(self.objects[path], body))

    def put(self, path, body):
        """Store an object under a new version."""
        held = self.objects.get(path, {}).get("metadata", {})
        version = str(int(held.get("resourceVersion", "0")) + 1)
        metadata = {**body["metadata"], "resourceVersion": version}
        self.objects[path] = {**body, "metadata": metadata}

    def put_secret(self, bundle):
        """Store a bundle as another replica would."""
        data = {k: base64.b64encode(v).decode() for k, v in bundle.to_files().items()}
        self.put(SECRET, {"metadata": {"name": "hami-webhook-tls"}, "data": data})

    def _write(self, verb, path):
        self.writes.append((verb, path))
        if self.before:
            step, self.before = self.before, None
            step()


class Installed:
    """An installer on a fake API, with its files."""

    def __init__(self, folder, api=None, now=NOW):
        self.api, self.folder = api or FakeApi(), folder
        config = parse(["certificates", "--certificate-dir", str(folder)], {})
        self.installer = Installer(self.api, config, now=lambda: now)

    def run(self):
        """One round; the files and the authorities that the registration trusts."""
        self.api.writes.clear()
        self.installer.run_once()
        webhooks = self.api.objects[REGISTRATION]["webhooks"]
        bundles = [webhook["clientConfig"]["caBundle"] for webhook in webhooks]
        assert len(set(bundles)) == 1
        return (self.folder / "tls.crt").read_bytes(), base64.b64decode(bundles[0])


@pytest.fixture
def installed(tmp_path):
    """One replica on an empty cluster."""
    return Installed(tmp_path / "tls")


def test_the_first_round_makes_everything(installed):
    """Secret, trust in every webhook of the registration, files."""
    certificate, trusted = installed.run()
    secret = installed.api.objects[SECRET]
    assert secret["type"] == "kubernetes.io/tls"
    assert base64.b64decode(secret["data"]["tls.crt"]) == certificate
    assert base64.b64decode(secret["data"]["ca.crt"]) == trusted
    assert [verb for verb, _ in installed.api.writes] == ["create", "jsonpatch"]


def test_the_next_rounds_write_nothing(installed):
    """Looking is cheap, and can be done for ever."""
    first = installed.run()
    assert installed.run() == first
    assert installed.api.writes == []


def test_other_replicas_take_what_is_stored(installed, tmp_path):
    """One certificate for all."""
    first = installed.run()
    assert Installed(tmp_path / "other", installed.api).run() == first
    assert installed.api.writes == []


def test_losing_the_race_to_create_reads_the_winner(installed):
    """Two replicas start at once on an empty cluster."""
    winner = issue(HOST, NOW)
    installed.api.before = lambda: installed.api.put_secret(winner)
    assert installed.run() == (winner.certificate, winner.authorities)


def test_losing_the_race_to_renew_reads_the_winner(installed, tmp_path):
    """Two replicas see the same old certificate."""
    installed.run()
    later = NOW + timedelta(days=340)
    winner = issue(HOST, later)
    installed.api.before = lambda: installed.api.put_secret(winner)
    shown, trusted = Installed(tmp_path / "b", installed.api, later).run()
    assert shown == winner.certificate
    assert trusted.startswith(winner.authorities)


def test_renewal_when_fewer_than_30_days_are_left(installed, tmp_path):
    """The authority stays, so nobody has to learn anything."""
    first, trusted = installed.run()
    later = Installed(tmp_path / "b", installed.api, NOW + timedelta(days=340))
    second, still_trusted = later.run()
    assert second != first
    assert still_trusted == trusted
    assert later.api.writes == [("patch", SECRET)]


def test_trust_that_was_lost_is_written_again(installed):
    """Somebody applied the manifest anew without the bundle."""
    first = installed.run()
    installed.api.objects[REGISTRATION]["webhooks"][1]["clientConfig"] = {"caBundle": "AAAA"}
    assert installed.run() == first
    assert installed.api.writes == [("jsonpatch", REGISTRATION)]


def test_a_spoilt_secret_is_replaced(installed):
    """By a new authority; it stays one Secret."""
    installed.run()
    installed.api.objects[SECRET]["data"]["tls.key"] = "AAAA"
    installed.run()
    del installed.api.objects[SECRET]["data"]["ca.crt"]
    installed.run()
    installed.api.objects[SECRET]["data"]["ca.key"] = "not base64"
    installed.api.objects[SECRET]["data"]["tls.crt"] = ""
    installed.run()
    assert [verb for verb, _ in installed.api.writes] == ["patch", "jsonpatch"]


def test_without_a_registration_the_server_still_gets_its_files(installed):
    """It may be applied later; nobody calls us until then."""
    registration = installed.api.objects.pop(REGISTRATION)
    installed.installer.run_once()
    assert (installed.folder / "tls.crt").exists()
    installed.api.objects[REGISTRATION] = registration
    installed.run()


def test_trust_comes_before_the_files(installed):
    """A crash in between must not show a certificate that nobody trusts."""

    def die():
        raise ApiError(500, "", "down")

    def second_write():
        installed.api.before = die

    installed.api.before = second_write
    with pytest.raises(ApiError, match="down"):
        installed.installer.run_once()
    assert not installed.folder.exists()
    installed.run()


def test_a_refusal_is_passed_on(installed):
    """Whoever runs it says so in the log, and tries again."""

    def forbidden(path, kind):
        raise ApiError(403, "Forbidden", path)

    installed.api.get = forbidden
    with pytest.raises(ApiError, match="403"):
        installed.installer.run_once()
    assert installed.api.writes == []


def test_an_authority_is_told_before_it_signs(installed, tmp_path):
    """Over the months: a new authority beside the old one, then, later, its certificate."""
    ending = NOW + timedelta(days=3600)
    held = issue(HOST, ending - timedelta(days=100), issue(HOST, NOW))
    installed.api.put_secret(held)
    shown, both = Installed(tmp_path / "b", installed.api, ending).run()
    assert shown == held.certificate
    assert both.endswith(held.authorities)
    assert len(x509.load_pem_x509_certificates(both)) == 2
    soon = Installed(tmp_path / "b", installed.api, ending + timedelta(minutes=5))
    assert soon.run() == (shown, both)
    assert installed.api.writes == []
    later = Installed(tmp_path / "b", installed.api, ending + timedelta(minutes=15))
    new, still = later.run()
    assert new != shown
    assert still == both
    authority = x509.load_pem_x509_certificates(both)[0]
    x509.load_pem_x509_certificate(new).verify_directly_issued_by(authority)


def test_who_loses_the_secret_loses_no_trust(installed, tmp_path):
    """Another replica shows the old certificate until its next look."""
    first, old = installed.run()
    del installed.api.objects[SECRET]
    shown, both = Installed(tmp_path / "b", installed.api).run()
    assert shown != first
    assert both.endswith(old)
    # This one shows what is trusted already, and changes over at its next look.
    assert installed.run() == (shown, both)


def test_what_is_shown_changes_only_after_trust_has_had_time(installed):
    """An API server that has not heard of the new authority would refuse every device pod."""
    first, _ = installed.run()
    del installed.api.objects[SECRET]
    assert installed.run()[0] == first
    assert installed.run()[0] != first


def test_who_gets_its_certificate_elsewhere_keeps_only_the_conditions(tmp_path):
    """With cert-manager nothing is stored, trusted or written here."""
    api = FakeApi()
    condition = {"name": "asks-for-a-device", "expression": "old"}
    api.objects[REGISTRATION]["webhooks"][0]["matchConditions"] = [condition]
    config = parse(["certificates", "--self-signed=false", f"--certificate-dir={tmp_path}/t"], {})
    Installer(api, config, conditions=lambda: {"asks-for-a-device": "new"}).run_once()
    assert [verb for verb, _ in api.writes] == ["jsonpatch"]
    found = api.objects[REGISTRATION]["webhooks"][0]
    assert found["matchConditions"][0]["expression"] == "new"
    assert found["clientConfig"] == {}
    assert not (tmp_path / "t").exists()
