"""Users of whom a trusted proxy says who they are, for example after a single sign-on."""

from __future__ import annotations

import contextlib
import ipaddress
from ipaddress import IPv4Address, IPv6Address

from starlette.requests import HTTPConnection

from hpc_agent.control_plane.door.config import ProxyConfig
from hpc_agent.control_plane.door.visitor import UserTokens, Visitor, Way, peer_of, visitor_with
from hpc_agent.control_plane.http.auth import secret_in

MAX_NAME = 200


class ByProxy:
    """Lets in whom the proxy names, and scripts with a user's token."""

    def __init__(self, config: ProxyConfig, users: UserTokens) -> None:
        self._config = config
        self._users = users

    async def visitor(self, connection: HTTPConnection) -> Visitor | None:
        is_proxy = self._is_proxy(connection)
        peer = _forwarded_for(connection) if is_proxy else peer_of(connection)
        if secret := secret_in(connection.headers):
            return visitor_with(await self._users.user_of(secret, Way.TOKEN, peer), Way.TOKEN, peer)
        name = self._name(connection) if is_proxy else None
        if name is None:
            return None
        role = self._config.roles.get(name, self._config.default_role)
        return Visitor(name=name, role=role, way=Way.PROXY, peer=peer) if role else None

    def _is_proxy(self, connection: HTTPConnection) -> bool:
        if self._config.socket is not None:
            return True  # nobody else can open it
        peer, own = _address(connection.scope.get("client")), _address(connection.scope["server"])
        # From this machine to itself: any of its users.
        if peer is None or peer == own:
            return False
        return any(peer in network for network in self._config.addresses)

    def _name(self, connection: HTTPConnection) -> str | None:
        """Return the user; None when there are two, of which one may be the visitor's own word."""
        names = connection.headers.getlist(self._config.header)
        if len(names) != 1:
            return None
        name = names[0].strip()
        with contextlib.suppress(UnicodeError):
            name = name.encode("latin-1").decode()
        return name if name.isprintable() and 0 < len(name) <= MAX_NAME else None


def _address(end: tuple[str, int] | None) -> IPv4Address | IPv6Address | None:
    """Return one end of a connection; IPv4 as such, also on a socket of IPv6."""
    try:
        address = ipaddress.ip_address(end[0] if end else "")
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _forwarded_for(connection: HTTPConnection) -> str:
    """Return whom the proxy speaks for: the last address, the others are the visitor's words."""
    headers = connection.headers.getlist("X-Forwarded-For")
    last = headers[-1].rpartition(",")[2].strip() if headers else ""
    try:
        return str(ipaddress.ip_address(last))
    except ValueError:
        return peer_of(connection)
