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
# Clocks of nodes differ; a certificate must hold on one that is behind.
_EARLIER = timedelta(hours=1)


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
    """Whether the server's certificate is for `host`, fits its key and authority, and lasts."""
    try:
        authority = x509.load_pem_x509_certificates(bundle.authorities)[0]
        leaf = x509.load_pem_x509_certificate(bundle.certificate)
        key = serialization.load_pem_private_key(bundle.key, password=None)
        leaf.verify_directly_issued_by(authority)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        host in names.get_values_for_type(x509.DNSName)
        and leaf.public_key() == key.public_key()
        and _lasts(leaf, now)
        and _lasts(authority, now)
    )


def _lasts(certificate: x509.Certificate, now: datetime) -> bool:
    left = certificate.not_valid_after_utc - now
    return certificate.not_valid_before_utc <= now and left > timedelta(days=RENEW_DAYS)


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
        authorities = _pem(authority)
        if held and held[0].not_valid_after_utc > now:
            authorities += _pem(held[0])
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
