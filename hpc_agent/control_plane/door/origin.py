"""By which name the UI was asked for, and by whose page.

A page of another site can make a browser connect to any address under a name of its own (DNS
rebinding), and send requests to ours with what lets the user in.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import HTTPConnection

SAFE_METHODS = frozenset({"GET", "HEAD"})


class Hosts:
    """The names under which the UI may be reached; any port."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in names)

    def include(self, connection: HTTPConnection) -> bool:
        """Tell whether the request is for one of them."""
        hosts = connection.headers.getlist("Host")
        return len(hosts) == 1 and _without_port(hosts[0]) in self._names


def is_ours(connection: HTTPConnection) -> bool | None:
    """Tell whether a page of this UI makes the request; None when it does not say."""
    origins = connection.headers.getlist("Origin")
    if not origins:
        return None
    # Behind a proxy the UI is at the proxy's address, which it passes on in Host.
    own = f"{_scheme(connection)}://{connection.headers['Host']}"
    return [origin.lower() for origin in origins] == [own.lower()]


def changes_something(connection: HTTPConnection) -> bool:
    """Tell whether another site's page must not make this request."""
    return connection.scope["type"] == "websocket" or (
        connection.scope["method"] not in SAFE_METHODS
    )


def _scheme(connection: HTTPConnection) -> str:
    """Return the scheme in the browser's address line: that of our TLS, or of the proxy's."""
    if connection.scope.get("client") is None:
        return connection.headers.get("X-Forwarded-Proto", "https")
    return "https" if connection.scope["scheme"] in {"https", "wss"} else "http"


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    has_port = bool(colon) and port.isdigit() and (":" not in name or name.endswith("]"))
    return (name if has_port else host.lower()).strip("[]").rstrip(".")
