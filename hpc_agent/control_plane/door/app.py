"""The door as an ASGI application."""

from __future__ import annotations

from dataclasses import dataclass, replace

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute

from hpc_agent.control_plane.audit.log import AuditLog
from hpc_agent.control_plane.door.gate import LOGIN_PATH, Gate
from hpc_agent.control_plane.door.graphql import GraphQLDoor
from hpc_agent.control_plane.door.headers import SecurityHeaders
from hpc_agent.control_plane.door.login import LoginPages
from hpc_agent.control_plane.door.origin import Hosts
from hpc_agent.control_plane.door.proxy import Proxy
from hpc_agent.control_plane.door.subscriptions import Subscriptions
from hpc_agent.control_plane.door.upstream import Upstream
from hpc_agent.control_plane.door.visitor import Recognition
from hpc_agent.control_plane.http.limits import MEBIBYTE, BodyLimit
from hpc_agent.inbound.limits import Limits

MAX_BODY_BYTES = 16 * MEBIBYTE
"""Of a launch with its run config, and of a report."""

IDLE_SECONDS = 75.0
STRANGERS_OF_A_PROXY = 1024


def limits_for(*, behind_proxy: bool) -> Limits:
    """Return what the door's listener holds out; visitors of a proxy have one address."""
    limits = Limits(idle_seconds=IDLE_SECONDS)
    if not behind_proxy:
        return limits
    number = STRANGERS_OF_A_PROXY
    return replace(limits, strangers=number, strangers_per_peer=number)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorParts:
    """What the door is made of.

    ``login`` is None where nobody logs in here. Each ``recheck_seconds`` an open websocket's
    visitor is looked at again.
    """

    upstream: Upstream
    hosts: Hosts
    recognition: Recognition
    login: LoginPages | None
    audit: AuditLog
    recheck_seconds: float = 10.0
    websockets_per_visitor: int = 64


def make_door(parts: DoorParts) -> Starlette:
    """Build the application."""
    pages = []
    if parts.login is not None:
        pages = [
            Route(LOGIN_PATH, parts.login.ask, methods=["GET"]),
            Route(LOGIN_PATH, parts.login.login, methods=["POST"]),
            Route("/logout", parts.login.ask_out, methods=["GET"]),
            Route("/logout", parts.login.logout, methods=["POST"]),
        ]
    app = Starlette(
        routes=[
            *pages,
            Route("/graphql", GraphQLDoor(parts.upstream, parts.audit)),
            WebSocketRoute(
                "/graphql",
                Subscriptions(
                    parts.upstream,
                    parts.recognition,
                    recheck_seconds=parts.recheck_seconds,
                    per_visitor=parts.websockets_per_visitor,
                ),
            ),
            Route("/{path:path}", Proxy(parts.upstream, parts.audit)),
        ],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(
                Gate,
                hosts=parts.hosts,
                recognition=parts.recognition,
                public=frozenset({LOGIN_PATH} if parts.login else ()),
            ),
            Middleware(BodyLimit, limit_of=lambda _path: MAX_BODY_BYTES),
        ],
    )
    app.router.redirect_slashes = False
    return app
