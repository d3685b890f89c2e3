"""``/graphql``: documents are read, judged by what they would change, and sent on made anew."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from hpc_agent.control_plane.documents import mutations_of
from hpc_agent.control_plane.door.gate import visitor_of
from hpc_agent.control_plane.door.proxy import NOT_UP, streamed
from hpc_agent.control_plane.door.upstream import Upstream
from hpc_agent.control_plane.roles import RoleLackingError, check
from hpc_agent.errors import ControlPlaneRefusedError

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody asks the webserver's GraphQL."""

    query: str
    variables: dict[str, Any]
    operation: str | None

    @property
    def message(self) -> dict[str, Any]:
        return {
            "query": self.query, "variables": self.variables, "operationName": self.operation
        }  # fmt: skip


class GraphQLDoor:
    """ASGI application for HTTP; subscriptions.py is for websockets."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method != "POST":
            await self._page(request, send)
            return
        try:
            asked = await _read(request)
            mutations = await asyncio.to_thread(mutations_of, asked.query)
        except ControlPlaneRefusedError as error:
            await refused(str(error), 400)(scope, receive, send)
            return
        try:
            check(visitor_of(request).role, [each.name for each in mutations])
        except RoleLackingError as error:
            await refused(str(error), 403)(scope, receive, send)
            return
        try:
            await self._send_on(request, asked, send)
        except httpx.TransportError:
            await NOT_UP(scope, receive, send)

    async def _send_on(self, request: Request, asked: Asked, send: Send) -> None:
        content = json.dumps(asked.message).encode()
        async with self._upstream.answer(
            request, "POST", path="/graphql", content=content, content_type=JSON
        ) as answer:
            await streamed(answer)(request.scope, request.receive, send)

    async def _page(self, request: Request, send: Send) -> None:
        """Show GraphiQL. A document in the address would be executed, mutations too: it is not."""
        if request.method not in {"GET", "HEAD"} or request.query_params:
            response = refused("a GraphQL document is sent as JSON by POST", 405)
            await response(request.scope, request.receive, send)
            return
        async with self._upstream.answer(request, request.method, path="/graphql") as answer:
            await streamed(answer)(request.scope, request.receive, send)


def asked_in(data: object) -> Asked:
    """Return what a message holds. Raises ControlPlaneRefusedError."""
    if not isinstance(data, dict):
        raise ControlPlaneRefusedError("a request must be one JSON object")
    query, variables = data.get("query"), data.get("variables")
    operation = data.get("operationName")
    if (
        not isinstance(query, str)
        or not isinstance(variables, dict | None)
        or not isinstance(operation, str | None)
    ):
        raise ControlPlaneRefusedError(
            "`query` must be a string, `variables` an object, `operationName` a string"
        )
    return Asked(query=query, variables=variables or {}, operation=operation)


def refused(message: str, status: int) -> Response:
    """Return a refusal in the words of GraphQL."""
    return JSONResponse({"errors": [{"message": message}]}, status_code=status)


async def _read(request: Request) -> Asked:
    # A page of another site can post forms and text, but not this type without asking first.
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != JSON:
        raise ControlPlaneRefusedError(f"the body must be {JSON}")
    try:
        return asked_in(json.loads(await request.body()))
    except (ValueError, RecursionError) as error:
        raise ControlPlaneRefusedError(f"the body is not JSON: {error}") from error
