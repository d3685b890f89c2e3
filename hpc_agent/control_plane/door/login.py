"""``/login`` and ``/logout``: pages of our own, without scripts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from hpc_agent.control_plane.audit.entry import Action, Entry, Outcome
from hpc_agent.control_plane.audit.log import AuditLog
from hpc_agent.control_plane.door.attempts import TooManyAttemptsError
from hpc_agent.control_plane.door.gate import LOGIN_PATH, too_many, visitor_of
from hpc_agent.control_plane.door.visitor import (
    SESSION_COOKIE,
    UserTokens,
    Visitor,
    Way,
    peer_of,
    visitor_with,
)
from hpc_agent.control_plane.store.sessions import SESSION_SECONDS, Sessions

MAX_FORM_BYTES = 4096
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, auto_reload=False,
    undefined=StrictUndefined,
)  # fmt: skip
# Read here, since the event loop must not wait for the disk.
_PAGES = {
    name: _environment.get_template(name) for name in ("page.html", "login.html", "logout.html")
}


class LoginPages:
    """Opens a session for who shows a user's token, and closes it again."""

    def __init__(self, users: UserTokens, sessions: Sessions, audit: AuditLog) -> None:
        self._users = users
        self._sessions = sessions
        self._audit = audit

    async def ask(self, request: Request) -> Response:
        """Show the form."""
        return _page("login.html", next=local_path(request.query_params.get("next", "/")))

    async def login(self, request: Request) -> Response:
        """Take the form."""
        form = await _form(request)
        if form is None:
            return Response("the form is too large", status_code=413)
        then = local_path(form.get("next", "/"))
        peer = peer_of(request)
        try:
            token = await self._users.user_of(form.get("token", "").strip(), Way.SESSION, peer)
        except TooManyAttemptsError as error:
            return too_many(error)
        visitor = visitor_with(token, Way.SESSION, peer)
        if token is None or visitor is None:
            problem = "This is not a valid user token."
            return _page("login.html", status=401, next=then, problem=problem)
        secret = await asyncio.to_thread(self._sessions.open, token.token_id)
        await self._note(Action.LOGIN, visitor)
        response = RedirectResponse(then, status_code=303)
        response.set_cookie(
            SESSION_COOKIE, secret, max_age=int(SESSION_SECONDS), path="/", secure=True,
            httponly=True, samesite="strict",
        )  # fmt: skip
        return response

    async def ask_out(self, request: Request) -> Response:
        """Show who is logged in, with a button to log out."""
        visitor = visitor_of(request)
        can_leave = visitor.way is Way.SESSION
        return _page("logout.html", visitor=visitor, can_leave=can_leave)

    async def logout(self, request: Request) -> Response:
        """Close the session."""
        if secret := request.cookies.get(SESSION_COOKIE):
            await asyncio.to_thread(self._sessions.close, secret)
            await self._note(Action.LOGOUT, visitor_of(request))
        response = RedirectResponse(LOGIN_PATH, status_code=303)
        response.delete_cookie(
            SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="strict"
        )
        return response

    async def _note(self, action: Action, visitor: Visitor) -> None:
        entry = Entry(action=action, actor=visitor.actor, what="web UI", outcome=Outcome.OK)
        await self._audit.note(entry)


def local_path(wanted: str) -> str:
    r"""Return a path of this UI to go to after the login: "/" for what leads elsewhere.

    A browser takes ``//host`` and ``/\host`` for another site, and drops tabs and newlines first.
    """
    is_local = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    return wanted if is_local and wanted.isascii() and wanted.isprintable() else "/"


async def _form(request: Request) -> dict[str, str] | None:
    """Return the fields of a posted form; None when it is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return None
    fields = parse_qs(body.decode("latin-1"), max_num_fields=10)
    return {name: values[-1] for name, values in fields.items()}


def _page(name: str, *, status: int = 200, problem: str = "", **values: object) -> Response:
    text = _PAGES[name].render(problem=problem, **values)
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(text, status_code=status, headers=headers)
