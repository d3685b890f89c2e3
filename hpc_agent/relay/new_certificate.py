"""Makes the relay's certificate: ``python -m hpc_agent.relay.new_certificate DIRECTORY NAME…``.

A process of its own, so that ten megabytes of cryptography, needed once, do not stay in the agent.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hpc_agent.private_files import write_private
from hpc_agent.relay.certificate import Certificate, certificate_in

# Jobs pin the certificate itself, so it need not expire; nodes with a wrong clock exist.
_VALID = timedelta(days=20 * 365)
_CLOCK_SKEW = timedelta(days=2)


def create(certificate: Certificate, names: Sequence[str]) -> None:
    """Make a key and a self-signed certificate for these hosts and addresses."""
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
    write_private(certificate.key_file, private, durable=True)
    public = signed.public_bytes(serialization.Encoding.PEM)
    write_private(certificate.certificate_file, public, durable=True)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


if __name__ == "__main__":
    create(certificate_in(Path(sys.argv[1])), sys.argv[2:])
