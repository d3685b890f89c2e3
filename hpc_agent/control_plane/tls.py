"""A certificate authority of our own, and the server certificate it signs."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hpc_agent.errors import ConfigError
from hpc_agent.private_files import require_private, write_private

CA_DAYS = 3650
SERVER_DAYS = 397
RENEW_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """Files for the listener; ``ca`` is what agents trust, None for an admin's own certificate."""

    certificate: Path
    key: Path
    ca: Path | None


def own_certificate(certificate: Path, key: Path) -> ServerTls:
    """Use an admin's certificate. Raises ConfigError when a file cannot be read."""
    for path in (certificate, key):
        if not path.is_file():
            raise ConfigError(f"no such file: {path}; check --tls-cert and --tls-key")
    return ServerTls(certificate=certificate, key=key, ca=None)


def generated_certificate(directory: Path, *hosts: str) -> ServerTls:
    """Return a certificate for this machine and these names of it, made or renewed as needed.

    Raises UnsafePathError for a key that somebody else has made.
    """
    files = ServerTls(
        certificate=directory / "server.pem", key=directory / "server.key", ca=directory / "ca.pem"
    )
    for name in ("ca.key", "server.key"):
        with contextlib.suppress(FileNotFoundError):
            require_private(directory / name)
    ca, ca_key, fresh = _authority(directory)
    names = _subject_names(hosts)
    if fresh or not _is_good(files.certificate, names):
        certificate, key = _sign_server(ca, ca_key, names)
        write_private(files.key, _pem_key(key), durable=True)
        write_private(files.certificate, _pem(certificate) + _pem(ca), durable=True)
    return files


def _authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey, bool]:
    certificate_path, key_path = directory / "ca.pem", directory / "ca.key"
    if certificate_path.exists() and key_path.exists():
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{key_path} is not an elliptic-curve key: remove {directory}")
        return x509.load_pem_x509_certificate(certificate_path.read_bytes()), key, False
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hpc-agent control plane CA")])
    certificate = (
        _builder(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(key_path, _pem_key(key), durable=True)
    write_private(certificate_path, _pem(certificate), durable=True)
    return certificate, key, True


def _sign_server(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName]
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hpc-agent control plane")])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        _builder(subject, ca.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def names_in(certificate: Path) -> list[str]:
    """Return the host names and addresses that a certificate is for. Raises ConfigError."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    except (OSError, ValueError) as error:
        raise ConfigError(f"{certificate} is not a certificate in PEM: {error}") from error
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *(str(each) for each in addresses)]


def _subject_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    always = ("localhost", "127.0.0.1", socket.gethostname(), socket.getfqdn())
    names: list[x509.GeneralName] = []
    for candidate in dict.fromkeys((*always, *hosts)):
        if candidate in ("0.0.0.0", "::", ""):  # noqa: S104 a wildcard is no name to verify
            continue
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(candidate)))
        except ValueError:
            names.append(x509.DNSName(candidate))
    return names


def _is_good(path: Path, names: list[x509.GeneralName]) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    if certificate.not_valid_after_utc < datetime.now(UTC) + RENEW_BEFORE:
        return False
    present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names) <= set(present)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
