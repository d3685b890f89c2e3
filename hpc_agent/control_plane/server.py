"""Listeners of the control plane, and what serves on them."""

from __future__ import annotations

import asyncio
import socket

from starlette.types import ASGIApp

from hpc_agent.control_plane.tls import ServerTls
from hpc_agent.errors import ConfigError
from hpc_agent.inbound.http import Upgrade
from hpc_agent.inbound.limits import Limits
from hpc_agent.inbound.listener import HTTP, Listener
from hpc_agent.inbound.sockets import bind_port
from hpc_agent.tls import server_context

STOP_SECONDS = 3.0


def bind(host: str, port: int) -> socket.socket:
    """Return a listener. Raises ConfigError when the address is in use or not ours."""
    try:
        return bind_port(host, port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port"
        ) from error


def url_of(listener: socket.socket, host: str) -> str:
    """Return the address of a TLS listener; a wildcard's is the name of this machine."""
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"https://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}"


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    tls: ServerTls | None,
    limits: Limits,
    upgrade: Upgrade | None = None,
) -> None:
    """Serve until cancelled; without ``tls`` on a unix socket, see Listener for the others."""
    context = None
    if tls is not None:
        context = await asyncio.to_thread(server_context, tls.certificate, tls.key, [HTTP])
    serving = Listener(app, tls=context, limits=limits, upgrade=upgrade)
    await serving.start(listener)
    try:
        await asyncio.Event().wait()
    finally:
        await serving.stop(STOP_SECONDS)
