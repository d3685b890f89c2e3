"""The relay's self-signed certificate: made once, pinned by the jobs through ``relay.json``."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# Jobs pin the certificate itself, so it need not expire; nodes with a wrong clock exist.
_VALID = timedelta(days=20 * 365)
_CLOCK_SKEW = timedelta(days=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Certificate and key files (PEM)."""

    certificate_file: Path
    key_file: Path

    @property
    def pem(self) -> str:
        """The certificate, without its key."""
        return self.certificate_file.read_text()


def load_or_create(state_dir: Path, names: Sequence[str]) -> Certificate:
    """Return the persisted certificate, making one for ``names`` (hosts, addresses) first."""
    certificate = Certificate(
        certificate_file=state_dir / "relay-certificate.pem", key_file=state_dir / "relay-key.pem"
    )
    if not (certificate.certificate_file.exists() and certificate.key_file.exists()):
        _create(certificate, names)
    return certificate


def server_context(certificate: Certificate, protocols: Sequence[str]) -> ssl.SSLContext:
    """Return the TLS context of the listener."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate.certificate_file, certificate.key_file)
    context.set_alpn_protocols(list(protocols))
    # Each connection lives long; tickets would only cost memory and confuse idle checks.
    context.num_tickets = 0
    return context


def write_private(path: Path, data: bytes) -> None:
    """Write a file atomically, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _create(certificate: Certificate, names: Sequence[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hpc-agent relay")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(certificate.key_file, private)
    write_private(certificate.certificate_file, signed.public_bytes(serialization.Encoding.PEM))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
