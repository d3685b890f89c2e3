"""The door's life: what it is made of, where it listens, and that it serves."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from dataclasses import dataclass

from hpc_agent.account import Account
from hpc_agent.control_plane.door.app import DoorParts, limits_for, make_door
from hpc_agent.control_plane.door.attempts import Attempts
from hpc_agent.control_plane.door.config import UiAuth, UiConfig
from hpc_agent.control_plane.door.login import LoginPages
from hpc_agent.control_plane.door.origin import Hosts
from hpc_agent.control_plane.door.proxy_user import ByProxy
from hpc_agent.control_plane.door.upstream import Upstream
from hpc_agent.control_plane.door.visitor import Anybody, ByToken, UserTokens
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.http.auth import TokenFinder
from hpc_agent.control_plane.server import bind, serve, url_of
from hpc_agent.control_plane.services import Services
from hpc_agent.control_plane.store.sessions import Sessions
from hpc_agent.control_plane.tls import ServerTls, names_in
from hpc_agent.errors import ConfigError
from hpc_agent.inbound.sockets import bind_unix
from hpc_agent.inbound.websocket import WebSocketConnection

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where the UI is reached, with the listener there: with TLS, or a socket for a proxy."""

    config: UiConfig
    tls: ServerTls
    listener: socket.socket
    url: str

    async def serve(self, home: Home, services: Services) -> None:
        """Serve the UI until cancelled."""
        upstream = Upstream(home.webserver_socket)
        try:
            app = make_door(self._parts(services, upstream))
            tls = None if self.config.socket else self.tls
            limits = limits_for(behind_proxy=self.config.proxy is not None)
            await serve(app, self.listener, tls, limits, WebSocketConnection)
        finally:
            await upstream.close()

    def _parts(self, services: Services, upstream: Upstream) -> DoorParts:
        audit = services.audit
        hosts = Hosts([*names_in(self.tls.certificate), *self.config.hosts])
        if self.config.auth is UiAuth.OFF:
            return DoorParts(
                upstream=upstream, hosts=hosts, recognition=Anybody(), login=None, audit=audit
            )
        users = UserTokens(TokenFinder(services.tokens), audit, Attempts(), services.meter)
        if self.config.auth is UiAuth.HEADER and self.config.proxy is not None:
            known = ByProxy(self.config.proxy, users)
            return DoorParts(
                upstream=upstream, hosts=hosts, recognition=known, login=None, audit=audit
            )
        sessions = Sessions(services.database)
        return DoorParts(
            upstream=upstream, hosts=hosts, recognition=ByToken(users, sessions),
            login=LoginPages(users, sessions, audit), audit=audit,
        )  # fmt: skip


def open_door(
    config: UiConfig, host: str, port: int, tls: ServerTls, name: str | None = None
) -> Door:
    """Listen. Raises ConfigError when the address is taken, or open to others without a login."""
    if config.auth is UiAuth.OFF:
        if not _is_loopback(host):
            raise ConfigError(
                f"--ui-auth off shows the UI to everybody who reaches {host}: it is for "
                "--webserver-host 127.0.0.1 alone"
            )
        logger.warning(
            "THE UI HAS NO LOGIN: whoever has an account on this machine can open it, launch runs, "
            "and so run code as %s; leave out --ui-auth off to change that", Account.here().name,
        )  # fmt: skip
    if config.socket is not None:
        listener = bind_unix(config.socket)
        return Door(config=config, tls=tls, listener=listener, url=f"https://{config.hosts[0]}")
    try:
        listener = bind(host, port)
    except ConfigError as error:
        raise ConfigError(
            f"cannot show the UI on {host}:{port}, the address is in use or not ours: "
            "choose another --webserver-port or --webserver-host"
        ) from error
    return Door(config=config, tls=tls, listener=listener, url=url_of(listener, host, name))


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
