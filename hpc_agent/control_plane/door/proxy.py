"""Pages, files and reports: everything that is not GraphQL, passed through."""

from __future__ import annotations

import logging

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from hpc_agent.control_plane.door.gate import visitor_of
from hpc_agent.control_plane.door.origin import SAFE_METHODS
from hpc_agent.control_plane.door.upstream import Upstream, returned
from hpc_agent.control_plane.roles import Role

REPORTS = ("/report_asset_materialization/", "/report_asset_check/", "/report_asset_observation/")
"""The webserver's other ways to change something (dagster_webserver/external_assets.py)."""

logger = logging.getLogger(__name__)


class Proxy:
    """ASGI application: lets a visitor read all paths, and an operator report on assets."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        refusal = _refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        content = None if request.method in SAFE_METHODS else request.stream()
        try:
            async with self._upstream.answer(
                request, request.method, path=scope["path"], query=scope["query_string"],
                content=content,
            ) as answer:  # fmt: skip
                await streamed(answer)(scope, receive, send)
        except httpx.TransportError as error:
            logger.warning("the webserver does not answer %s: %r", scope["path"], error)
            await NOT_UP(scope, receive, send)


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
    if not visitor_of(request).role.covers(Role.OPERATOR):
        return JSONResponse({"error": "your role is viewer: it may change nothing"}, 403)
    return None
