"""What is checked before anything else: the name, the visitor, the origin."""

from __future__ import annotations

import html
from urllib.parse import quote, urlencode

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hpc_agent.control_plane.door.attempts import WINDOW_SECONDS, TooManyAttemptsError
from hpc_agent.control_plane.door.origin import Hosts, changes_something, is_ours
from hpc_agent.control_plane.door.visitor import Recognition, Visitor
from hpc_agent.inbound.callers import hear, vouch

LOGIN_PATH = "/login"
"""The one path that is answered to strangers, where people log in here.

The UI's scripts and styles are not: our login page needs none, and a stranger does not learn what
runs here in which release.
"""

LOGIN_NEEDED = (
    "log in first: open the UI in a browser, or send a user token as `Authorization: Bearer …` "
    "(hpc-agent control-plane token create --kind user)"
)


class Gate:
    """ASGI middleware: puts who asks into ``scope["visitor"]``, or refuses.

    ``public`` paths are for strangers too, whose body is heard there and nowhere else.
    """

    def __init__(
        self, app: ASGIApp, hosts: Hosts, recognition: Recognition, public: frozenset[str]
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._recognition = recognition
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = await self._refusal(scope)
        await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Response | None:
        connection = HTTPConnection(scope)
        if not self._hosts.include(connection):
            return _error(421, "the UI is not reached by this name: add it to `hosts` in ui.yaml")
        visitor = None
        if scope["path"] not in self._public:
            try:
                visitor = await self._recognition.visitor(connection)
            except TooManyAttemptsError as error:
                return too_many(error)
            if visitor is None:
                return _stranger(connection, has_login=bool(self._public))
            scope["visitor"] = visitor
            vouch(scope)
        else:
            hear(scope)
        if changes_something(connection) and not _is_wanted(connection, visitor):
            return _error(403, "this request comes from a page that is not of this UI")
        return None


def visitor_of(connection: HTTPConnection) -> Visitor:
    """Return who was let in."""
    visitor: Visitor = connection.scope["visitor"]
    return visitor


def too_many(error: TooManyAttemptsError) -> Response:
    """Answer who has shown too many wrong tokens."""
    headers = {"Retry-After": str(int(WINDOW_SECONDS))}
    return JSONResponse({"error": str(error)}, status_code=429, headers=headers)


def _is_wanted(connection: HTTPConnection, visitor: Visitor | None) -> bool:
    """Tell whether the user wants this, as far as the browser says whose page asks.

    A script that sends a token says nothing, and needs not to: no page of another site has it.
    """
    ours = is_ours(connection)
    if ours is None:
        return visitor is not None and not visitor.must_show_origin
    return ours


def _stranger(connection: HTTPConnection, *, has_login: bool) -> Response:
    scope = connection.scope
    is_page = has_login and scope["type"] == "http" and scope["method"] == "GET"
    if not is_page or "text/html" not in connection.headers.get("Accept", ""):
        return JSONResponse(
            {"error": LOGIN_NEEDED}, status_code=401, headers={"WWW-Authenticate": "Bearer"}
        )
    here = quote(scope["path"])
    if query := scope["query_string"].decode("latin-1"):
        here += f"?{quote(query, safe='=&%+,;:@/?')}"
    if connection.headers.get("Sec-Fetch-Site") == "cross-site":
        # A link on another site: the cookie is SameSite=Strict and comes with our own page's only.
        target = html.escape(here, quote=True)
        return HTMLResponse(f'<meta http-equiv="refresh" content="0; url={target}">')
    return RedirectResponse(f"{LOGIN_PATH}?{urlencode({'next': here})}", status_code=303)


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)
