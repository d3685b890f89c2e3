"""Calls of the stock webserver, which listens on a unix socket that only our account can open."""

from __future__ import annotations

from pathlib import Path

import httpx

from hpc_agent.control_plane.door.headers import READ_ONLY_HEADER

BASE_URL = "http://webserver"
OUR_OWN = {READ_ONLY_HEADER: "no"}
"""Headers of the control plane's own calls, which may do everything."""


def client(socket: Path, timeout: float) -> httpx.Client:
    """Return a client for worker threads."""
    transport = httpx.HTTPTransport(uds=str(socket))
    return httpx.Client(transport=transport, base_url=BASE_URL, timeout=timeout, trust_env=False)


def async_client(socket: Path, timeout: float) -> httpx.AsyncClient:
    """Return a client for the event loop."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    return httpx.AsyncClient(
        transport=transport, base_url=BASE_URL, timeout=timeout, trust_env=False
    )
