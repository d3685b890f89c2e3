"""``/graphql``: documents are read, judged by what they would change, and sent on made anew."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from hpc_agent.control_plane.audit.entry import Outcome
from hpc_agent.control_plane.audit.log import AuditLog
from hpc_agent.control_plane.audit.mutations import entries_of
from hpc_agent.control_plane.documents import Mutation, mutations_of
from hpc_agent.control_plane.door.gate import visitor_of
from hpc_agent.control_plane.door.proxy import NOT_UP, streamed
from hpc_agent.control_plane.door.upstream import Upstream, returned
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

    def __init__(self, upstream: Upstream, audit: AuditLog) -> None:
        self._upstream = upstream
        self._audit = audit

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
            if mutations:
                await (await self._change(request, asked, mutations))(scope, receive, send)
            else:
                async with self._answer(request, asked) as answer:
                    await streamed(answer)(scope, receive, send)
        except httpx.TransportError:
            await NOT_UP(scope, receive, send)

    async def _change(
        self, request: Request, asked: Asked, mutations: Sequence[Mutation]
    ) -> Response:
        """Send on what changes something, and note it. Raises httpx.TransportError."""
        visitor = visitor_of(request)
        found: object = None
        outcome: Outcome | None = Outcome.UNKNOWN
        try:
            check(visitor.role, [each.name for each in mutations])
            async with self._answer(request, asked) as answer:
                content = await answer.aread()
                found, outcome = _parsed(content), None
                response = Response(content, answer.status_code)
                response.raw_headers = returned(answer.headers)
                return response
        except RoleLackingError as error:
            outcome = Outcome.REFUSED
            return refused(str(error), 403)
        except httpx.ConnectError:
            outcome = Outcome.FAILED
            raise
        finally:
            await self._audit.note(
                *entries_of(
                    visitor.actor, mutations, asked.variables, answer=found, outcome=outcome
                )
            )

    def _answer(
        self, request: Request, asked: Asked
    ) -> AbstractAsyncContextManager[httpx.Response]:
        content = json.dumps(asked.message).encode()
        return self._upstream.answer(
            request, "POST", path="/graphql", content=content, content_type=JSON
        )

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


def _parsed(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None


async def _read(request: Request) -> Asked:
    # A page of another site can post forms and text, but not this type without asking first.
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != JSON:
        raise ControlPlaneRefusedError(f"the body must be {JSON}")
    try:
        return asked_in(json.loads(await request.body()))
    except (ValueError, RecursionError) as error:
        raise ControlPlaneRefusedError(f"the body is not JSON: {error}") from error
