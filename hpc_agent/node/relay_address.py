"""Where the relay is, and a TLS connection to it that trusts its certificate and no other."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Dict, Tuple

from .job_files import read_regular

CONNECT_SECONDS = 5.0
_LAST_PORT = 65535
HTTP = "http/1.1"
TUNNEL = "hpc-tunnel/1"
# Of TLS 1.2, as hpc_agent/tls.py has them.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class RelayUnreachable(Exception):  # noqa: N818  (an expected condition: the agent is away)
    """No address of the relay answered; the message says why, per address."""


@dataclass(frozen=True)
class RelayAddress:
    """``relay.json``: addresses in order of preference, and the pinned certificate (PEM)."""

    addresses: Tuple[Tuple[str, int], ...]
    certificate: str


def read_address(path: str) -> RelayAddress:
    """Read ``relay.json`` afresh: a restarted agent replaces it. Raises RelayUnreachable."""
    try:
        # A link, and the file that it leads to is replaced on another host.
        document: Dict[str, Any] = json.loads(read_regular(path, follow=True).decode("utf-8"))
        if document["version"] != 1:
            raise ValueError("version %r, expected 1" % document["version"])  # noqa: TRY301
        addresses = tuple(_host_and_port(address) for address in document["addresses"])
        return RelayAddress(addresses=addresses, certificate=str(document["certificate"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RelayUnreachable("cannot read %s: %s" % (path, error)) from error


def dial(path: str, protocol: str) -> ssl.SSLSocket:
    """Connect to the first address that answers, as ALPN ``protocol``. Raises RelayUnreachable."""
    address = read_address(path)
    try:
        context = _pinned_context(address.certificate, protocol)
    except (ssl.SSLError, ValueError, TypeError) as error:
        raise RelayUnreachable("bad certificate in %s: %s" % (path, error)) from error
    failures = []
    for host, port in address.addresses:
        try:
            return _connect(host, port, context)
        except (OSError, ValueError) as error:  # ValueError: a name that can be no host's
            failures.append("%s:%d: %s" % (host, port, error))
    raise RelayUnreachable("the relay does not answer (%s)" % "; ".join(failures))


def _connect(host: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return context.wrap_socket(plain)
    except BaseException:
        plain.close()
        raise


def _pinned_context(certificate: str, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # The certificate itself is the identity: it is the only one trusted, under whatever address.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=certificate)
    context.set_alpn_protocols([protocol])
    return context


def _host_and_port(address: str) -> Tuple[str, int]:
    host, _, text = address.rpartition(":")
    port = int(text)
    if not 0 < port <= _LAST_PORT:
        raise ValueError("%r has no port" % address)
    return host.strip("[]"), port
