"""Listeners of the control plane, and what serves on them."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from starlette.types import ASGIApp

from hpc_agent.control_plane.tls import ServerTls
from hpc_agent.errors import ConfigError
from hpc_agent.inbound.http import Upgrade
from hpc_agent.inbound.limits import Limits
from hpc_agent.inbound.listener import BACKLOG, HTTP, Listener
from hpc_agent.tls import server_context

STOP_SECONDS = 3.0


def bind(host: str, port: int) -> socket.socket:
    """Return a listener. Raises ConfigError when the address is in use or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol left at 0, asyncio does not set TCP_NODELAY (asyncio/base_events.py), and
    # each answer waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)  # who reads our address may connect before we accept
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port"
        ) from error
    return listener


def bind_unix(path: Path) -> socket.socket:
    """Return a listener that our account and the group of its directory can open.

    Raises ConfigError, also when somebody else could put another socket in its place.
    """
    try:
        directory = path.parent.stat()
        if directory.st_uid not in {0, os.geteuid()} or directory.st_mode & 0o022:
            raise ConfigError(
                f"{path.parent} must belong to this account and let nobody else write: "
                f"install -d -m 2750 -g GROUP-OF-THE-PROXY {path.parent}"
            )
        if path.is_socket():
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            path.chmod(0o660)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(f"cannot listen on {path}: {error.strerror or error}") from error
    return listener


def url_of(listener: socket.socket, host: str, name: str | None = None) -> str:
    """Return the address of a TLS listener; a wildcard's is ``name``, or that of this machine."""
    name = name or socket.gethostname() if host in {"0.0.0.0", "::"} else host  # noqa: S104
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
