"""TLS as this project speaks it: 1.3, or 1.2 with authenticated ciphers and forward secrecy."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

# Of TLS 1.2 (those of 1.3 are all of this kind, and are not chosen by this list). RFC 9325,
# section 4.2: no CBC, no SHA-1, no key exchange without forward secrecy.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_Context = TypeVar("_Context", bound=ssl.SSLContext)


def server_context(
    certificate: Path, key: Path, protocols: Sequence[str], *, tickets: bool = True
) -> ssl.SSLContext:
    """Return the context of a listener. Raises OSError, SSLError for files that do not fit."""
    context = tightened(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(list(protocols))
    if not tickets:
        context.num_tickets = 0
    return context


def tightened(context: _Context) -> _Context:
    """Allow a context, a server's or a client's, nothing that is known to be weak."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context
