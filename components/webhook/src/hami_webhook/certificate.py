"""The certificate that the front shows, read anew whenever its files change."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog
from cryptography import x509

log = structlog.get_logger()

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"


def new_context() -> ssl.SSLContext:
    """A server's context without a certificate yet: TLS 1.2 and later, HTTP/1.1 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


class LiveCertificate:
    """Keeps `context` on what `folder` holds as tls.crt and tls.key.

    Only handshakes after a change see the new certificate. `expiry` is told its end as Unix
    seconds.
    """

    def __init__(self, folder: str, expiry: Callable[[float], None] = lambda _: None) -> None:
        self.context = new_context()
        self._files = [os.path.join(folder, name) for name in (CERTIFICATE_FILE, KEY_FILE)]
        self._folder, self._expiry = folder, expiry
        self._seen: object = None
        self._loaded = False

    def missing(self) -> str | None:
        """What is missing until TLS can be spoken; None when nothing is."""
        return None if self._loaded else f"no usable certificate in {self._folder} yet"

    def refresh(self) -> bool:
        """Load the files if they changed since the last look; whether a new pair is in use."""
        try:
            stamp = [_stamp(path) for path in self._files]
        except FileNotFoundError:
            return False
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            # A key that does not match would spoil the context in use, so try on another one.
            new_context().load_cert_chain(*self._files)
            self.context.load_cert_chain(*self._files)
            leaf = x509.load_pem_x509_certificate(Path(self._files[0]).read_bytes())
        except (OSError, ValueError) as error:
            # Often only half of a new pair is there yet; the other half changes the stamp again.
            log.warning("certificate not usable, keeping the old one", error=str(error))
            return False
        self._loaded = True
        self._expiry(leaf.not_valid_after_utc.timestamp())
        log.info("certificate loaded", folder=self._folder, until=str(leaf.not_valid_after_utc))
        return True


def _stamp(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns
