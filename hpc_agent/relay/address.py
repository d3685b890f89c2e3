"""Where the relay listens, and how jobs learn of it. Blocking calls: for a thread."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections.abc import Iterable

from hpc_agent.errors import ConfigError
from hpc_agent.private_files import write_private
from hpc_agent.relay.settings import RelaySettings

log = logging.getLogger(__name__)

_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104  (compared with, not bound)


def bind(settings: RelaySettings) -> socket.socket:
    """Bind the given port, else the last one, else any."""
    if settings.port:
        return _bound(settings.bind, settings.port)
    memory = settings.state_dir / "relay-port"
    with contextlib.suppress(OSError, ValueError, ConfigError):
        return _bound(settings.bind, int(memory.read_text()))
    sock = _bound(settings.bind, 0)
    write_private(memory, f"{sock.getsockname()[1]}\n", durable=True)
    return sock


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only on sockets that name their protocol; with it every
    # answer waits 40 ms for the peer's delayed acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"the relay cannot listen on {host}:{port}: {error.strerror}; "
            "set relay.bind and relay.port in agent.yaml to an address and a port that are free"
        ) from error
    sock.setblocking(False)
    return sock


def advertised_hosts(settings: RelaySettings) -> tuple[str, ...]:
    """Return the hosts (or ``host:port``) that jobs should try, in order."""
    if settings.advertise:
        return settings.advertise
    if settings.bind in _WILDCARDS:
        return (_own_host(),)
    return (settings.bind,)


def _own_host() -> str:
    """Return this machine's name, or its address where that name means nothing."""
    name = socket.gethostname()
    with contextlib.suppress(OSError, UnicodeError):
        socket.getaddrinfo(name, None)
        return name
    address = _own_address()
    log.warning(
        "%s, the name of this machine, has no address: jobs are told to call %s. "
        "If that is not how compute nodes reach it, set relay.advertise in agent.yaml.",
        name,
        address,
    )
    return address


def _own_address() -> str:
    """Return the address by which this machine reaches others; loopback when it has no route."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        # Nothing is sent: it only looks up the route to an address that nobody has (RFC 5737).
        sock.connect(("192.0.2.1", 9))
        return str(sock.getsockname()[0])
    return "127.0.0.1"


def split_host(address: str) -> tuple[str, str]:
    """Split ``host:port``, ``host``, ``[v6]:port`` or a bare IPv6 address into host and port."""
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        return host, port.lstrip(":")
    if address.count(":") == 1:
        host, _, port = address.partition(":")
        return host, port
    return address, ""


def announcement(addresses: Iterable[str], port: int, certificate: str) -> str:
    """Return ``relay.json``; ``port`` is that of the addresses that have none."""
    listed = []
    for address in addresses:
        host, own_port = split_host(address)
        listed.append(
            f"[{host}]:{own_port or port}" if ":" in host else f"{host}:{own_port or port}"
        )
    return json.dumps({"version": 1, "addresses": listed, "certificate": certificate})
