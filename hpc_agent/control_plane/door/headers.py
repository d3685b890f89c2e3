"""Headers that the door adds to every answer."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A browser intersects several Content-Security-Policy headers: the UI's own one stays in force.
# Not "no-referrer": with it a browser sends ``Origin: null`` with the forms of our own pages (Fetch
# standard, "append a request `Origin` header"). Other sites get no referrer with this one either.
# No Strict-Transport-Security: it would hold for every other port of this host too.
SECURITY = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY = "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"


class SecurityHeaders:
    """ASGI middleware: every answer says that it is for nobody's frame, and no shared cache."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY)
                headers.setdefault("Cache-Control", "private")
                headers.append("Content-Security-Policy", POLICY)
            await send(message)

        await self._app(scope, receive, send_with)
