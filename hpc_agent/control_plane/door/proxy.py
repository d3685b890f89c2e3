"""Pages, files and reports: everything that is not GraphQL, passed through."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from hpc_agent.control_plane.audit.entry import Action, Entry, Outcome
from hpc_agent.control_plane.audit.log import AuditLog
from hpc_agent.control_plane.door.gate import visitor_of
from hpc_agent.control_plane.door.origin import SAFE_METHODS
from hpc_agent.control_plane.door.upstream import Upstream, returned
from hpc_agent.control_plane.roles import Role

REPORTS = ("/report_asset_materialization/", "/report_asset_check/", "/report_asset_observation/")
"""The webserver's other ways to change something (dagster_webserver/external_assets.py)."""

logger = logging.getLogger(__name__)


class Proxy:
    """ASGI application: lets a visitor read all paths, and an operator report on assets."""

    def __init__(self, upstream: Upstream, audit: AuditLog) -> None:
        self._upstream = upstream
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        refusal = _refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if request.method in SAFE_METHODS:
            await self._pass(request, send, None)
            return
        role = visitor_of(request).role
        if not role.covers(Role.OPERATOR):
            refusal = JSONResponse({"error": f"your role is {role}: this needs operator"}, 403)
            await self._note(request, Outcome.REFUSED)
            await refusal(scope, receive, send)
            return
        outcome = Outcome.UNKNOWN
        try:
            outcome = await self._pass(request, send, request.stream())
        finally:
            await self._note(request, outcome)

    async def _pass(
        self, request: Request, send: Send, content: AsyncIterable[bytes] | None
    ) -> Outcome:
        scope, receive = request.scope, request.receive
        try:
            async with self._upstream.answer(
                request, request.method, path=scope["path"], query=scope["query_string"],
                content=content,
            ) as answer:  # fmt: skip
                await streamed(answer)(scope, receive, send)
                return Outcome.OK if answer.is_success else Outcome.FAILED
        except httpx.TransportError as error:
            logger.warning("the webserver does not answer %s: %r", scope["path"], error)
            await NOT_UP(scope, receive, send)
            return Outcome.FAILED

    async def _note(self, request: Request, outcome: Outcome) -> None:
        actor = visitor_of(request).actor
        await self._audit.note(
            Entry(action=Action.MUTATION, actor=actor, what=request.scope["path"], outcome=outcome)
        )


NOT_UP = PlainTextResponse(
    "The webserver does not answer. It may be starting: try again in a moment.", status_code=503,
    headers={"Retry-After": "5"},
)  # fmt: skip


def streamed(answer: httpx.Response) -> Response:
    """Return the webserver's answer as it comes in."""
    response = StreamingResponse(answer.aiter_raw(), status_code=answer.status_code)
    response.raw_headers = returned(answer.headers)
    return response


def _refusal(request: Request) -> Response | None:
    path = request.scope["path"]
    if {".", ".."} & set(path.split("/")):
        return JSONResponse({"error": "a path must not contain . or .. segments"}, 400)
    if request.method in SAFE_METHODS:
        return None
    if request.method != "POST" or not path.startswith(REPORTS):
        return JSONResponse({"error": f"{request.method} is not for this path"}, 405)
    return None
