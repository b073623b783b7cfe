"""Making the webhook's own certificates, and judging whether stored ones still serve."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
LEAF_DAYS = 365
RENEW_DAYS = 30
# A new authority is made earlier than a certificate is, so the two never change at once.
RENEW_AUTHORITY_DAYS = 60
# By then every API server has heard of a new authority, however slow its watch.
SETTLE = timedelta(minutes=10)
# Clocks of nodes differ; a certificate must hold on one that is behind.
_EARLIER = timedelta(hours=1)
_AUTHORITIES = 4


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything PEM: who signs, with which key, and the server's certificate with its own.

    `authorities` is what clients trust: the present authority first, then the one before it.
    """

    authorities: bytes
    authority_key: bytes
    certificate: bytes
    key: bytes

    FIELDS = ("ca.crt", "ca.key", "tls.crt", "tls.key")

    def to_files(self) -> dict[str, bytes]:
        """By the names that a Secret of type kubernetes.io/tls uses."""
        values = (self.authorities, self.authority_key, self.certificate, self.key)
        return dict(zip(self.FIELDS, values, strict=True))

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "Bundle":
        """The reverse of `to_files`; KeyError when a file is missing."""
        return cls(*(files[name] for name in cls.FIELDS))


def usable(bundle: Bundle, host: str, now: datetime) -> bool:
    """Whether the certificate is for `host`, fits its key, and is signed by who is trusted now."""
    try:
        trusted = x509.load_pem_x509_certificates(bundle.authorities)
        leaf = x509.load_pem_x509_certificate(bundle.certificate)
        key = serialization.load_pem_private_key(bundle.key, password=None)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return (
        host in names.get_values_for_type(x509.DNSName)
        and leaf.public_key() == key.public_key()
        and _valid(leaf, now)
        and any(_signed(leaf, by) and _valid(by, now) for by in trusted)
    )


def _signed(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _lasts(certificate: x509.Certificate, now: datetime, days: int = RENEW_DAYS) -> bool:
    return _valid(certificate, now) and certificate.not_valid_after_utc - now > timedelta(days=days)


def successor(held: Bundle, host: str, now: datetime) -> Bundle | None:
    """What is to take a bundle's place, None while it serves.

    An authority that comes to its end is first joined by a new one that everybody is told to
    trust; only when that has had time to be heard of does it sign the server's certificate.
    """
    found = _authority(held)
    if found is None or not usable(held, host, now):
        return issue(host, now, held)
    authority, _ = found
    if not _lasts(authority, now, RENEW_AUTHORITY_DAYS):
        return _joined(held, now)
    leaf = x509.load_pem_x509_certificate(held.certificate)
    settled = now - authority.not_valid_before_utc > _EARLIER + SETTLE
    if not _lasts(leaf, now) or (settled and not _signed(leaf, authority)):
        return issue(host, now, held)
    return None


def _joined(held: Bundle, now: datetime) -> Bundle:
    """A new authority beside those held; the server's certificate stays."""
    signer = ec.generate_private_key(ec.SECP256R1())
    authorities = trust(_pem(_sign_authority(signer, now)), held.authorities, now)
    return Bundle(authorities, _key_pem(signer), held.certificate, held.key)


def trust(first: bytes, more: bytes, now: datetime) -> bytes:
    """One list of authorities: all of the first, then those of the second that are still valid.

    What is no list of certificates counts as empty. The list stays short, whatever was in it.
    """
    authorities = _certificates(first)
    for authority in _certificates(more):
        if authority not in authorities and _valid(authority, now):
            authorities.append(authority)
    return b"".join(map(_pem, authorities[:_AUTHORITIES]))


def _certificates(text: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError:
        return []


def issue(host: str, now: datetime, previous: Bundle | None = None) -> Bundle:
    """A new server's certificate, by the previous authority while that lasts.

    A new authority is trusted beside the previous one, so that replicas may change over one after
    the other.
    """
    held = previous and _authority(previous)
    if previous and held and _lasts(held[0], now):
        authorities, (authority, signer) = previous.authorities, held
    else:
        signer = ec.generate_private_key(ec.SECP256R1())
        authority = _sign_authority(signer, now)
        authorities = trust(_pem(authority), previous.authorities if previous else b"", now)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _sign_leaf(host, key, (authority, signer), now)
    return Bundle(authorities, _key_pem(signer), _pem(leaf), _key_pem(key))


def _authority(bundle: Bundle) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    """The bundle's authority and its key, None when they cannot be used."""
    try:
        certificate = x509.load_pem_x509_certificates(bundle.authorities)[0]
        key = serialization.load_pem_private_key(bundle.authority_key, password=None)
    except (ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    return (certificate, key) if certificate.public_key() == key.public_key() else None


def _builder(
    common_name: str, public: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _sign_authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    # The name has a part of its own, so that two authorities in one bundle are told apart.
    name = f"hami-webhook authority {x509.random_serial_number() % 10**9}"
    public, end = key.public_key(), now + timedelta(days=AUTHORITY_DAYS)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder(name, public, now, end)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def _sign_leaf(
    host: str,
    key: ec.EllipticCurvePrivateKey,
    authority: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    now: datetime,
) -> x509.Certificate:
    certificate, signer = authority
    end = min(now + timedelta(days=LEAF_DAYS), certificate.not_valid_after_utc)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return (
        _builder(host, key.public_key(), now, end)
        .issuer_name(certificate.subject)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(server, critical=False)
        .add_extension(identifier, critical=False)
        .sign(signer, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
