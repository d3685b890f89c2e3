"""What one listener holds out, and for how long it waits."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpc_agent.descriptors import descriptor_limit

# For files, databases, child processes and connections to the control plane.
_OTHER_DESCRIPTORS = 256
_LEAST_CONNECTIONS = 64
_MOST_CONNECTIONS = 4096


def most_connections() -> int:
    """Return how many connections this process can hold, each of which may lead to another."""
    spare = (descriptor_limit() - _OTHER_DESCRIPTORS) // 2
    return max(_LEAST_CONNECTIONS, min(spare, _MOST_CONNECTIONS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``strangers`` are connections that have shown no token, in all and from one address.

    A stranger has ``handshake_seconds`` for TLS, ``headers_seconds`` for its one request, and
    ``closing_seconds`` to take the answer. One that has been there for ``patience_seconds`` makes
    room for the next where the limit is reached. Others may be idle for ``idle_seconds`` between
    requests; for a body they are waited for ``body_seconds``, and a second more for each
    ``body_bytes_per_second`` that have come.
    """

    connections: int = field(default_factory=most_connections)
    strangers: int = 256
    strangers_per_peer: int = 64
    patience_seconds: float = 1.0
    handshake_seconds: float = 10.0
    headers_seconds: float = 10.0
    closing_seconds: float = 3.0
    idle_seconds: float = 60.0
    body_seconds: float = 20.0
    body_bytes_per_second: int = 4096
