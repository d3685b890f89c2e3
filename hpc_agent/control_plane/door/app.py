"""The door as an ASGI application."""

from __future__ import annotations

from dataclasses import dataclass

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

MAX_BODY_BYTES = 16 * MEBIBYTE
"""Of a launch with its run config, and of a report."""

SERVER_SETTINGS = {
    # Of its headers a stranger's request may fill this much memory, and no more; httptools, the
    # other parser, has no bound.
    "http": "h11", "h11_max_incomplete_event_size": 64 * 1024,
    # Who asks is decided by the peer's address: uvicorn would take another one from the request.
    "proxy_headers": False,
    "server_header": False, "limit_concurrency": 1000, "ws_max_size": MEBIBYTE,
    "timeout_keep_alive": 75,
}  # fmt: skip


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
