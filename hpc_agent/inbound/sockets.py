"""Bound sockets that listen: on a port, or at a path for programs of this machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from hpc_agent.errors import ConfigError
from hpc_agent.inbound.listener import BACKLOG


def bind_port(host: str, port: int) -> socket.socket:
    """Return a listener. Raises OSError when the address is in use or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol left at 0, asyncio does not set TCP_NODELAY (asyncio/base_events.py), and
    # each answer waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)  # who reads our address may connect before we accept
    except OSError:
        listener.close()
        raise
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
                f"install -d -m 2750 -g GROUP-OF-THE-READER {path.parent}"
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
