"""Behaviour of hami_webhook.issuer and hami_webhook.certificate."""

import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from hami_webhook.certificate import LiveCertificate
from hami_webhook.installer import write_files
from hami_webhook.issuer import Bundle, issue, successor, trust, usable

HOST = "hami-webhook.hami-system.svc"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
REAL_NOW = datetime.now(UTC)


def leaf(bundle):
    """The server's certificate."""
    return x509.load_pem_x509_certificate(bundle.certificate)


def authorities(bundle):
    """What clients trust."""
    return x509.load_pem_x509_certificates(bundle.authorities)


def test_a_new_bundle_serves():
    """Signed by its own authority, for the Service's name, a year long."""
    bundle = issue(HOST, NOW)
    assert usable(bundle, HOST, NOW)
    assert leaf(bundle).not_valid_after_utc == NOW + timedelta(days=365)
    assert len(authorities(bundle)) == 1
    assert Bundle.from_files(bundle.to_files()) == bundle


@pytest.mark.parametrize(
    ("host", "days"),
    [("other.hami-system.svc", 0), (HOST, 366), (HOST, 4000), (HOST, -1)],
)
def test_what_no_longer_serves(host, days):
    """Another name, over, or not begun; its successor is whole."""
    bundle, now = issue(HOST, NOW), NOW + timedelta(days=days)
    assert not usable(bundle, host, now)
    assert usable(successor(bundle, host, now), host, now)


def test_a_successor_is_due_only_near_the_end():
    """At 30 days before the end of the certificate."""
    bundle = issue(HOST, NOW)
    assert successor(bundle, HOST, NOW) is None
    assert successor(bundle, HOST, NOW + timedelta(days=334)) is None
    assert successor(bundle, HOST, NOW + timedelta(days=336)) is not None


def test_the_list_of_the_trusted_stays_short():
    """However often somebody deletes the Secret; what is over or garbage is left out."""
    bundles = [issue(HOST, NOW) for _ in range(9)]
    text = b"".join(bundle.authorities for bundle in bundles)
    kept = trust(bundles[8].authorities, text, NOW)
    assert kept == b"".join(bundle.authorities for bundle in [bundles[8], *bundles[:3]])
    assert trust(text, b"garbage", NOW).startswith(bundles[0].authorities)
    assert trust(bundles[0].authorities, text, NOW + timedelta(days=4000)) == bundles[0].authorities


def test_mixed_up_parts_do_not_serve():
    """A key of another certificate, an authority that did not sign, garbage."""
    one, two = issue(HOST, NOW), issue(HOST, NOW)
    assert not usable(replace(one, key=two.key), HOST, NOW)
    assert not usable(replace(one, authorities=two.authorities), HOST, NOW)
    assert not usable(Bundle(b"x", b"x", b"x", b"x"), HOST, NOW)


def test_renewal_keeps_the_authority_while_it_lasts():
    """Then no client has to learn anything."""
    old = issue(HOST, NOW)
    later = NOW + timedelta(days=340)
    new = issue(HOST, later, old)
    assert new.authorities == old.authorities
    assert leaf(new) != leaf(old)
    assert usable(new, HOST, later)


def test_a_new_authority_is_trusted_beside_the_old_one():
    """Replicas change over one after the other."""
    old = issue(HOST, NOW)
    later = NOW + timedelta(days=3640)
    new = issue(HOST, later, old)
    assert authorities(new)[1] == authorities(old)[0]
    assert usable(new, HOST, later)
    assert len(authorities(issue(HOST, NOW + timedelta(days=4000), old))) == 1


def test_a_spoilt_bundle_is_replaced_by_a_whole_new_one():
    """Whatever somebody wrote into the Secret."""
    old = issue(HOST, NOW)
    for broken in (
        Bundle(b"", b"", b"", b""),
        Bundle(old.authorities, b"x", old.certificate, old.key),
        Bundle(old.authorities, issue(HOST, NOW).authority_key, b"", b""),
    ):
        assert usable(issue(HOST, NOW, broken), HOST, NOW)


def test_a_certificate_is_missing_until_it_is_there(tmp_path):
    """The server waits for it; nothing is an error."""
    ends = []
    live = LiveCertificate(str(tmp_path), ends.append)
    assert not live.refresh()
    assert "no usable certificate" in live.missing()
    bundle = issue(HOST, REAL_NOW)
    write_files(str(tmp_path), bundle)
    assert live.refresh()
    assert live.missing() is None
    assert ends == [leaf(bundle).not_valid_after_utc.timestamp()]
    assert not live.refresh()


def test_half_a_new_pair_leaves_the_old_one_in_use(tmp_path):
    """Key and certificate are two files and cannot change at one instant."""
    old, new = issue(HOST, REAL_NOW), issue(HOST, REAL_NOW)
    write_files(str(tmp_path), old)
    live = LiveCertificate(str(tmp_path))
    assert live.refresh()
    (tmp_path / "tls.key").write_bytes(new.key)
    assert not live.refresh()
    assert shown(live.context, old) == leaf(old)
    (tmp_path / "tls.crt").write_bytes(new.certificate)
    assert live.refresh()
    assert shown(live.context, new) == leaf(new)


def test_files_are_private_and_left_alone_when_right(tmp_path):
    """A rewrite would make every server load them again."""
    folder = tmp_path / "tls"
    bundle = issue(HOST, REAL_NOW)
    write_files(str(folder), bundle)
    before = [path.stat() for path in sorted(folder.iterdir())]
    assert {oct(status.st_mode & 0o777) for status in before} == {"0o600"}
    write_files(str(folder), bundle)
    assert [path.stat() for path in sorted(folder.iterdir())] == before


def shown(context, trusted):
    """The certificate of a handshake in memory, verified by who trusts the bundle."""
    client = ssl.create_default_context(cadata=trusted.authorities.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=HOST)
    there = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (here, there, here, there):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return x509.load_der_x509_certificate(here.getpeercert(binary_form=True))
