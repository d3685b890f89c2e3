"""Calls of the stock webserver, which listens on a unix socket that only our account can open."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx

from hpc_agent.control_plane.roles import Role

BASE_URL = "http://webserver"
MAX_CONNECTIONS = 500
"""More than httpx's 100: visitors who read slowly must not keep the others waiting."""

READ_ONLY_HEADER = "X-Hpc-Agent-Read-Only"
"""``no`` from us to the webserver: who asks may do more than look."""


def told_of(role: Role) -> dict[str, str]:
    """Return the header that tells the webserver what to offer to this role."""
    return {READ_ONLY_HEADER: "yes" if role is Role.VIEWER else "no"}


def client(path: Path, timeout: float) -> httpx.Client:
    """Return a client for worker threads. Raises OSError when nobody listens.

    Looked at here, because httpcore 1.0.9 leaves a socket open that cannot connect
    (_backends/sync.py).
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(timeout)
        probe.connect(str(path))
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(transport=transport, base_url=BASE_URL, timeout=timeout, trust_env=False)


def async_client(path: Path, timeout: float) -> httpx.AsyncClient:
    """Return a client for the event loop."""
    transport = httpx.AsyncHTTPTransport(
        uds=str(path), limits=httpx.Limits(max_connections=MAX_CONNECTIONS)
    )
    return httpx.AsyncClient(
        transport=transport, base_url=BASE_URL, timeout=timeout, trust_env=False
    )
