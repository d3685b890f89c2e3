"""One TLS port for both protocols: ALPN says whether a connection speaks HTTP or is a tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

log = logging.getLogger(__name__)

HTTP = "http/1.1"
TUNNEL = "hpc-tunnel/1"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ServeTunnel = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_HANDSHAKE_SECONDS = 20.0
# Longer than the node program keeps idle connections: it is the node that closes them.
_KEEP_ALIVE_SECONDS = 60
_BACKLOG = 2048


class Listener:
    """Accepts connections and hands each to uvicorn's HTTP protocol or to the tunnels.

    uvicorn's Server is left out on purpose: it takes over signals and logging, which are the
    agent's. Its protocol class and Config are what is used of it.
    """

    def __init__(
        self, app: Any, serve_tunnel: ServeTunnel, *, tls: ssl.SSLContext, allow: Sequence[Network]
    ) -> None:
        self._config = Config(
            app,
            log_config=None,
            access_log=False,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        self._serve_tunnel = serve_tunnel
        self._tls = tls
        self._allow = tuple(allow)
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        """Listen on a bound socket."""
        self._config.load()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Switch(self),
            sock=sock,
            ssl=self._tls,
            backlog=_BACKLOG,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS,
        )

    async def stop(self, deadline_seconds: float) -> None:
        """Stop listening, let requests under way finish until the deadline, drop the rest."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_seconds):
                # uvicorn has no event for this; its own Server.shutdown polls as well.
                while self._busy():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks)

    def _busy(self) -> bool:
        """Whether an answer is being made or sent. An idle peer need not confirm TLS's end."""
        unsent = (unsent_bytes(c.transport) for c in self._state.connections)
        return bool(self._state.tasks) or any(unsent)

    def protocol_for(self, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """Return what serves a new connection, None when its address is not allowed."""
        peer = transport.get_extra_info("peername")
        if not self._allowed(peer):
            log.warning("connection from %s refused: not in relay.allow", peer and peer[0])
            return None
        loop = asyncio.get_running_loop()
        tls = transport.get_extra_info("ssl_object")
        if tls.selected_alpn_protocol() == TUNNEL:
            reader = asyncio.StreamReader(loop=loop)
            return asyncio.StreamReaderProtocol(reader, self._serve_tunnel, loop=loop)
        return H11Protocol(self._config, self._state, {}, _loop=loop)

    def _allowed(self, peer: Any) -> bool:
        if not self._allow:
            return True
        if not peer:
            return False
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._allow)


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Return how much a connection has still to send.

    A TLS transport that was closed twice has forgotten its protocol, and fails when asked
    (asyncio/sslproto.py of Python 3.11, _SSLProtocolTransport.close).
    """
    try:
        return transport.get_write_buffer_size()
    except AttributeError:
        return 0


class _Switch(asyncio.Protocol):
    """Lives from the end of the handshake until the protocol is known: one call."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (a stream transport)
        protocol = self._listener.protocol_for(transport)
        if protocol is None:
            transport.abort()
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
